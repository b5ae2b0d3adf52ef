import CPython
import Python
import Streams

/// How packets are read, and given to whom they concern.
extension PacketLink {
    /// Reads what is there. The reader's, without the GIL. Whether a thread that sleeps has got its response.
    func receive(_ gil: GILAccess, isCrew: Bool) -> Bool {
        var batch = Batch()
        var end: PacketEnd?
        var tellsPeer = true
        reading: for _ in 0..<(source.isSocket ? 4 : 1) {
            let (transfer, isFull) = input.read(from: source)
            switch transfer {
            case .bytes(0):
                end =
                    input.isBetweenPackets
                    ? .finished("the peer has ended the stream")
                    : .broken("the stream ended inside a packet")
                break reading
            case .bytes(let count):
                batch.bytes += count
                do throws(PacketError) { try parse(gil, &batch) } catch {
                    end = .broken("\(error)")
                    break reading
                }
                if let text = batch.end {
                    end = text
                    break reading
                }
                if !isFull { break reading }
            case .wouldBlock: break reading
            case .failed(let error):
                end = .broken("receiving failed: \(error)")
                tellsPeer = false
                break reading
            }
        }
        lastReceived.store(monotonicNanoseconds(), ordering: .relaxed)
        let gaveAway = apply(&batch, isCrew: isCrew)
        if let end { finish(end, tellsPeer: tellsPeer) }
        return gaveAway
    }

    /// What was read in one go.
    private struct Batch {
        var bytes = 0
        var packets: [(PacketHead, PacketPayload)] = []
        /// Behind which of them the peer has said that no more requests come.
        var requestsEnd = Int.max
        var end: PacketEnd?
    }

    private func parse(_ gil: GILAccess, _ batch: inout Batch) throws(PacketError) {
        while batch.end == nil {
            switch try input.next() {
            case .nothing: return
            case .packet(let head, let payload):
                if head.isRequest, head.requestType == 0 {
                    control(head, &batch)
                } else {
                    batch.packets.append((head, .copied(Payload(copying: payload))))
                }
            case .large(let head, let count):
                var beginning: [UInt8] = []
                if RpcFrame(head) == .data, let bytes = try input.beginning(RpcPacket.beforeFirst),
                    RpcPacket.isOneChunk(bytes, of: count)
                {
                    beginning = bytes
                }
                let size = count - beginning.count
                var made: PyPointer?
                gil.with {
                    garbage.giveBack()
                    made = PyBytes_FromStringAndSize(nil, size)
                    if made == nil { PyErr_Clear() }
                }
                guard let made, let memory = PyBytes_AsString(made) else {
                    batch.end = .broken("no memory for a packet of \(count) bytes")
                    return
                }
                // Nobody else knows of the object before it is filled.
                try input.place(UnsafeMutableRawPointer(memory), count: size, after: beginning.count)
                filling = (head, PacketBytes(owning: made, count: size, after: beginning, garbage))
                return
            case .filled:
                guard let (head, bytes) = filling else { return }
                filling = nil
                if head.isRequest, head.requestType == 0 {
                    control(head, &batch)
                } else {
                    batch.packets.append((head, .object(bytes)))
                }
            }
        }
    }

    private func control(_ head: PacketHead, _ batch: inout Batch) {
        switch (head.channel, head.tag) {
        case (0, 0): batch.end = .finished("the peer has ended its packets")
        case (0, 1): batch.requestsEnd = min(batch.requestsEnd, batch.packets.count)
        default:
            batch.end = .broken(
                "a control packet of no known kind: channel \(head.channel), tag \(head.tag)")
        }
    }

    /// Gives what was received to whom it concerns. Whether a thread that sleeps has got its response.
    private func apply(_ batch: inout Batch, isCrew: Bool) -> Bool {
        var wakers: [@Sendable () -> Void] = []
        var hand = Hand()
        var answers = false
        var passedOn: [(RpcFlow, weight: Int)] = []
        hasWokenReader.store(false, ordering: .relaxed)
        // First of all: what Python is told of after them may end their calls.
        let frames = takeFrames(batch)
        lock.withLock { c in
            c.counters.bytesReceived += batch.bytes
            c.counters.packetsReceived += batch.packets.count
            if options.ticks, !batch.packets.isEmpty { tick(&c, received: batch.packets.count) }
            c.isProbing = false
            for (index, (head, payload)) in batch.packets.enumerated() {
                if index >= batch.requestsEnd { c.theirRequestsEnded = true }
                if !head.isRequest {
                    respond(&c, head, payload, &wakers, &passedOn)
                } else if let isFrame = frames[index] {
                    answer(&c, head, isFrame)
                    answers = true
                } else {
                    answers = take(&c, head, payload) || answers
                }
            }
            if batch.requestsEnd < .max { c.theirRequestsEnded = true }
            // A reader of the crew does it itself, when it has read.
            if !isCrew, !c.hooks.isEmpty || (!c.work.isEmpty && c.running == 0) {
                hand = needHand(&c)
            } else if !c.work.isEmpty, c.running > 0 {
                hand = ensureStandby(&c)
            }
            if c.refusal != nil { wakers += takeWatchers(&c) }
        }
        for wake in wakers { wake() }
        follow(hand)
        for (flow, weight) in passedOn { flow.answered(weight) }
        if answers || !passedOn.isEmpty { flush(isDue: false) }
        return !wakers.isEmpty || hasWokenReader.load(ordering: .relaxed)
    }

    /// Takes the frames of streaming calls that need no Python. Which packets those were, and whether they were such.
    private func takeFrames(_ batch: Batch) -> [Int: Bool] {
        guard lock.withLock({ $0.flows != nil && $0.refusal == nil && !$0.theirRequestsEnded }) else {
            return [:]
        }
        var frames: [Int: Bool] = [:]
        for (index, (head, payload)) in batch.packets.enumerated() where index < batch.requestsEnd {
            if let frame = RpcFrame(head) { frames[index] = take(frame, payload) }
        }
        return frames
    }

    private func answer(_ c: inout Contents, _ head: PacketHead, _ isFrame: Bool) {
        c.counters.requestsReceived += 1
        let key = InboundKey(channel: head.channel, tag: head.tag)
        if isFrame { return append(&c, answer(to: key, flags: 0, isOk: true), nil) }
        c.counters.rejected += 1
        append(&c, answer(to: key, flags: 0, isOk: false), text: "no frame of a streaming call")
    }

    private func respond(
        _ c: inout Contents, _ head: PacketHead, _ payload: PacketPayload,
        _ wakers: inout [@Sendable () -> Void], _ passedOn: inout [(RpcFlow, weight: Int)]
    ) {
        let request = c.pending[head.tag]
        guard let request, request.channel == head.channel else {
            if request == nil, head.tag > 0, head.tag < c.nextTag {
                if head.channel != PacketLink.probeChannel { c.counters.lateResponses += 1 }
            } else {
                c.counters.unknownResponses += 1
                report(&c, "a response to no request: channel \(head.channel), tag \(head.tag)")
            }
            return
        }
        c.pending[head.tag] = nil
        if c.pending.isEmpty, c.pending.capacity > 4096 { c.pending = [:] }
        wakers += request.settle(.response(flags: head.flags, payload))
        if let flow = request.flow { passedOn.append(flow) }
        if c.pending.count + 1 == options.maxOutstanding { wakers += takeWatchers(&c) }
    }

    /// Takes a request of the peer, or rejects it: then there is something to write.
    private func take(_ c: inout Contents, _ head: PacketHead, _ payload: PacketPayload) -> Bool {
        c.counters.requestsReceived += 1
        let type = head.requestType &- 1
        func reject(_ text: String) -> Bool {
            c.counters.rejected += 1
            append(
                &c, answer(to: InboundKey(channel: head.channel, tag: head.tag), flags: 0, isOk: false),
                text: text)
            return true
        }
        if let refusal = c.refusal { return reject(refusal) }
        if c.theirRequestsEnded { return reject("requests no longer allowed") }
        guard let known = c.handlers[head.channel] else {
            return reject("unknown channel \(head.channel)")
        }
        let key = InboundKey(channel: head.channel, tag: head.tag)
        if c.inFlight.contains(key) {
            return reject("channel \(head.channel): tag already in use: \(head.tag)")
        }
        guard let handler = known else { return reject("no request handler") }
        c.inFlight.insert(key)
        c.inboundBytes += payload.count
        c.work.append(
            InboundRequest(
                channel: head.channel, tag: head.tag, flags: head.flags, type: type, payload: payload,
                handler: handler))
        return false
    }

    func answer(to key: InboundKey, flags: UInt64, isOk: Bool) -> PacketHead {
        PacketHead(
            isRequest: false, channel: key.channel, tag: key.tag, flags: flags << 1 | (isOk ? 1 : 0),
            requestType: 0)
    }

    func report(_ c: inout Contents, _ text: String) {
        // Somebody who sends nonsense fills no memory with it.
        if c.hooks.count < 100 { c.hooks.append(.report(text)) }
    }
}
