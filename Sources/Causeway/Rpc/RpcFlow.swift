import CPython
import Python
import Streams
import Synchronization

/// A call over a packet connection of a plain python3: what passes the chunks of a half on, and takes those
/// that come.
///
/// Whoever reads packets does so, and whoever sends, without the GIL. Chunks are numbered, and sent as far as
/// the other side has given room; while a packet of a call is on its way, small ones are collected for the
/// next.
final class RpcFlow: Sendable {
    /// How a direction ends.
    enum Final: Sendable, Equatable {
        case send, both
        case failure(code: String, message: String)
    }

    /// How many bytes are taken of the outbox at once.
    private static let atOnce = 262144
    /// How many bytes may wait to be passed on, and be on the way where there are large ones.
    static let outbox = 4 * atOnce

    private static let mostCredit = 1 << 60
    /// A packet says it with 32 bits.
    private static let largestGrant = 1 << 30

    /// How many bytes the other side may send where so many may wait to be received: those that are on the
    /// way as well.
    static func room(_ window: Int) -> Int { 4 &* min(window, 1 << 40) }

    private struct State {
        /// How many bytes the other side has room for.
        var credit: Int
        var sequence: UInt32 = 0
        var sequenceIn: UInt32 = 0
        /// How many packets are on their way, and what those chunks weigh.
        var passing = 0
        var onTheWay = 0
        /// How much the other side may still send, and how much was taken that it was not told of.
        var room: Int
        var owed = 0
        /// What is told when all is passed on, and what was.
        var final = Final.send
        var told: Final?
        var hasLeft = false
    }

    let half: StreamHalf
    let link: PacketLink
    /// By which the other side names the call.
    private let number: UInt32
    private let window: Int
    private let state: Mutex<State>

    /// `number` is that which comes; `credit` is what the other side has room for, and `room` what this one
    /// has.
    init(_ half: StreamHalf, _ link: PacketLink, number: UInt32, credit: Int, room: Int) {
        self.half = half
        self.link = link
        self.number = number ^ 1
        window = room
        state = Mutex(State(credit: credit, room: room))
    }

    /// The number that comes.
    var ownNumber: UInt32 { number ^ 1 }

    /// Whether the other side has opened the call: those come with even numbers.
    var isOfPeer: Bool { ownNumber & 1 == 0 }

    // MARK: Sending

    /// Passes on what waits, as far as it may. Whether there is something to write.
    @discardableResult
    func passOn() -> Bool {
        guard let outbox = half.outbox else { return false }
        var isOut = false
        let isPosted = state.withLock { state -> Bool in
            var isPosted = false
            while !state.hasLeft {
                let waiting = outbox.info
                let hasEnded = waiting.end != nil
                if waiting.messages == 0 || state.credit <= 0 {
                    // An error does not wait for who does not receive.
                    if hasEnded, waiting.messages == 0 || state.final.isFailure {
                        isOut = tellEnd(&state) || isOut
                    }
                    break
                }
                let isSmall = waiting.size < PacketInput.largeSize
                if state.passing > 0, !hasEnded, isSmall || state.onTheWay >= RpcFlow.outbox { break }
                guard post(&state, outbox) else { break }
                isPosted = true
            }
            return isPosted || isOut
        }
        if isOut, half.isOver || state.withLock({ $0.final != .send }) { leave() }
        return isPosted
    }

    /// Takes some of the outbox, and has them written: of large ones each in a packet of its own, which is
    /// read to where it stays.
    private func post(_ state: inout State, _ outbox: ByteQueue) -> Bool {
        var items: [Payload] = []
        _ = outbox.receive(bytes: min(state.credit, RpcFlow.atOnce), count: 4096) { items.append($0) }
        var rest = items[...]
        while let first = rest.first {
            var count = 1
            if first.body.count < PacketInput.largeSize {
                count =
                    rest.firstIndex { $0.body.count >= PacketInput.largeSize }.map { $0 - rest.startIndex }
                    ?? rest.count
            }
            let packet = RpcPacket(rest.prefix(count))
            rest = rest.dropFirst(count)
            guard link.post(packet, number: number, sequence: state.sequence, of: self) else { return false }
            state.sequence &+= packet.chunks
            state.credit -= packet.weight
            state.passing += 1
            state.onTheWay += packet.weight
        }
        return !items.isEmpty
    }

    /// The other side has got a packet.
    func answered(_ weight: Int) {
        state.withLock { state in
            state.passing -= 1
            state.onTheWay -= weight
        }
        passOn()
    }

    /// The other side has room for more.
    func grant(_ more: Int) {
        state.withLock { $0.credit = min($0.credit, RpcFlow.mostCredit) + min(more, RpcFlow.mostCredit) }
        passOn()
    }

    /// It is about to end so. The first error stays.
    func willEnd(_ final: Final) {
        state.withLock { state in if !state.final.isFailure { state.final = final } }
    }

    /// All is passed on: what comes then. Whether the other side has been told of the end.
    private func tellEnd(_ state: inout State) -> Bool {
        if state.told != state.final {
            state.told = state.final
            link.post(state.final, number: number)
        }
        return true
    }

    /// Nothing more goes over the connection.
    func leave() {
        state.withLock { $0.hasLeft = true }
        link.lock.withLock { c in
            guard c.flows?[ownNumber] === self else { return }
            c.flows?[ownNumber] = nil
            if isOfPeer { c.flowsOfPeer -= 1 }
        }
    }

    // MARK: Receiving

    /// So many bytes were taken: the other side is given room again, now and then. Whether there is something
    /// to write.
    func took(_ weight: Int) -> Bool {
        let credit = state.withLock { state -> Int in
            state.owed += weight
            guard state.owed >= min(window / 4, RpcFlow.largestGrant), !state.hasLeft else { return 0 }
            defer { state.owed = 0 }
            state.room += state.owed
            return state.owed
        }
        let isGranted = credit > 0 && link.post(credit: credit, number: number)
        return half.isOver && passOn() || isGranted
    }

    /// A packet of chunks has come. False where it is none.
    func deliver(_ packet: RpcPacket.Arrived) -> Bool {
        guard let (weight, chunks) = packet.measure() else { return false }
        let failure = state.withLock { state -> Final? in
            if packet.sequence != state.sequenceIn {
                return .failure(
                    code: "out_of_order",
                    message: "chunk \(packet.sequence) has come where \(state.sequenceIn) is the next")
            }
            // The first is taken however large it is, where there is any room.
            if weight > state.room, chunks > 1 || state.room <= 0 {
                return .failure(
                    code: "out_of_credit",
                    message: "\(weight) bytes have come where there was room for \(max(0, state.room))")
            }
            state.sequenceIn &+= UInt32(truncatingIfNeeded: chunks)
            state.room -= weight
            return nil
        }
        if let failure { end(failure) } else { packet.deliver(to: half) }
        if half.isOver { passOn() }
        return true
    }

    private func end(_ failure: Final) {
        guard case .failure(let code, let message) = failure else { return }
        willEnd(failure)
        half.abort(WireFailure(code: code, message: message))
        passOn()
    }
}

extension RpcFlow.Final {
    var isFailure: Bool { if case .failure = self { true } else { false } }
}

/// Why a call has failed, where no Python is at hand to say it.
final class WireFailure: Sendable {
    let code, message: String

    init(code: String, message: String) {
        self.code = code
        self.message = message
    }

    /// What the others are as well: `("error", (code, message))`. With the GIL.
    func object() throws(PythonError) -> Object {
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, try newString(code).take())
        PyTuple_SetItem(pair.pointer, 1, try newString(message).take())
        let tuple = try Object(PyTuple_New(2))
        PyTuple_SetItem(tuple.pointer, 0, try newString("error").take())
        PyTuple_SetItem(tuple.pointer, 1, pair.take())
        return tuple
    }
}

/// A reply that is given in a plain python3: its tuple, and what of it goes over a connection.
final class WireReply: Sendable {
    let object: AbortReason
    let body: Payload

    init(_ object: AbortReason, body: Payload) {
        self.object = object
        self.body = body
    }
}

/// A reply that has come over a connection: CBOR, of which Python makes the tuple when somebody asks.
final class WireAnswer: Sendable {
    let body: Payload

    init(_ body: Payload) { self.body = body }
}
