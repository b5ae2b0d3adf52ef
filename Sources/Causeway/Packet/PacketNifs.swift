import Beam
import CErlNif
import Streams

/// How many packets one NIF call takes at most: it must not keep its scheduler for long.
private let longestBatch = 2048

/// The codec of packets for `causeway_packet`. What is no packet is answered by `badarg`, of which Erlang makes an
/// error with a text.
var packetNifs: [ErlNifFunc] {
    [
        /// packet_decode(Binary, MaxLength) -> {Packets, Rest, Needed} | {Packets, {malformed, Text}} | badarg
        ///
        /// Payloads and Rest are parts of Binary. There is nothing to do before Rest has Needed bytes; 0 of them say
        /// that there is more to do at once.
        nif("packet_decode", 2) { env, _, arguments in
            guard let arguments, let maximum = integer(env, arguments[1]), maximum >= 0 else {
                return atoms.badarg
            }
            return withBinary(env, arguments[0]) { decode(env, arguments[0], $0, maximum) } ?? atoms.badarg
        },
        /// packet_head({request, Channel, Tag, Flags, Type} | {response, Channel, Tag, Flags}, PayloadSize)
        ///     -> Binary | badarg
        nif("packet_head", 2) { env, _, arguments in
            guard let arguments, let head = PacketHead(env, arguments[0]),
                let payload = integer(env, arguments[1]), payload >= 0
            else { return atoms.badarg }
            return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: PacketHead.longest) { memory in
                guard let base = memory.baseAddress else { return atoms.badarg }
                let size = head.write(payload: payload, to: base)
                return makeBinary(env, UnsafeRawBufferPointer(start: base, count: size)) ?? atoms.badarg
            }
        },
    ]
}

private func decode(_ env: EnvPointer?, _ binary: Term, _ bytes: UnsafeRawBufferPointer, _ maximum: Int)
    -> Term
{
    var packets: [Term] = []
    var start = 0
    var needed = 0
    do throws(PacketError) {
        // The bytes are those of an argument: they stay while the NIF runs.
        let all = bytes.bindMemory(to: UInt8.self)
        search: while packets.count < longestBatch {
            switch try FoundPacket.decode(all.span.extracting(droppingFirst: start), maximum: maximum) {
            case .packet(let head, let payload):
                let part = enif_make_sub_binary(env, binary, start &+ payload.lowerBound, payload.count)
                packets.append(head.term(env, payload: part))
                start &+= payload.upperBound
            case .incomplete(let count):
                needed = count
                break search
            }
        }
    } catch {
        let problem = makeTuple(env, atoms.malformed, makeBinary(env, error.description))
        return makeTuple(env, makeList(env, packets), problem)
    }
    let rest = enif_make_sub_binary(env, binary, start, bytes.count &- start)
    return makeTuple(env, makeList(env, packets), rest, enif_make_long(env, needed))
}

extension PacketHead {
    /// `{request, Channel, Tag, Flags, Type, Payload}` or `{response, Channel, Tag, Flags, Payload}`.
    fileprivate func term(_ env: EnvPointer?, payload: Term) -> Term {
        let (channel, tag) = (
            enif_make_ulong(env, UInt(truncatingIfNeeded: channel)),
            enif_make_ulong(env, UInt(truncatingIfNeeded: tag))
        )
        let flags = enif_make_ulong(env, UInt(truncatingIfNeeded: flags))
        guard isRequest else { return makeTuple(env, atoms.response, channel, tag, flags, payload) }
        return makeTuple(
            env, atoms.request, channel, tag, flags,
            enif_make_ulong(env, UInt(truncatingIfNeeded: requestType)), payload)
    }

    /// The same without the payload, read. Nil for other terms, and for numbers that packets cannot have.
    fileprivate init?(_ env: EnvPointer?, _ term: Term) {
        var count: Int32 = 0
        var parts: UnsafePointer<Term>?
        guard enif_get_tuple(env, term, &count, &parts) != 0, let parts, count == 4 || count == 5,
            parts[0] == (count == 5 ? atoms.request : atoms.response),
            let channel = number(env, parts[1]), let tag = number(env, parts[2]),
            let flags = number(env, parts[3]), flags <= PacketHead.largestFlags,
            let type = count == 5 ? number(env, parts[4]) : 0
        else { return nil }
        self.init(isRequest: count == 5, channel: channel, tag: tag, flags: flags, requestType: type)
    }
}

private func number(_ env: EnvPointer?, _ term: Term) -> UInt64? {
    var number: UInt = 0
    return enif_get_ulong(env, term, &number) != 0 ? UInt64(number) : nil
}
