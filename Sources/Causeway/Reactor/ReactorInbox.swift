import CPython
import Python
import Streams
import Synchronization

/// What reaches a reactor from other threads.
enum ReactorRequest: Sendable {
    /// A descriptor that the reactor owns from now on.
    case open(Handoff)
    /// A protocol that waits for it may write.
    case writeReady(Poller.Token)
    /// A connection that Python wants to end: at once, or when what is left is written.
    case close(Poller.Token)
    case finish(Poller.Token)
    /// A connection has ended that the host has adopted.
    case adoptedEnded
    /// No more connections: those that have nothing to write end now, the others when they have written.
    case drain
}

/// A reactor as everybody but its thread sees it.
final class ReactorInbox: Sendable {
    let requests = Mailbox<ReactorRequest>(limit: .max)
    /// Wakes the reactor's thread, which may have more to wait for than the reactor.
    let doorbell: Doorbell
    let maximumConnections: Int
    let statistics = ReactorStatistics()
    /// Connections that are served or on their way here.
    let connections = Atomic<Int>(0)
    /// Whether the reactor has a protocol factory of its own, for who does not hold the GIL.
    let hasFactory = Atomic<Bool>(false)
    /// Nothing new is taken: the reactor is about to end.
    let isDraining = Atomic<Bool>(false)
    /// The number of the call or batch of callbacks that Python is executing; 0 when none. Changed only
    /// with the GIL, so that who holds it knows what an interruption would hit.
    let activity = Atomic<UInt64>(0)

    /// What a poller is made of; with the first handoff, so that a lack of descriptors is a refusal of that.
    private let pollerParts = Mutex(PollerParts())

    private struct PollerParts: ~Copyable {
        var isPrepared = false
        var descriptor: Descriptor?
    }

    init(doorbell: Doorbell, maximumConnections: Int) {
        self.doorbell = doorbell
        self.maximumConnections = maximumConnections
    }

    /// Has all descriptors made that the reactor needs for itself.
    func prepare() throws(Errno) {
        try pollerParts.withLock { parts throws(Errno) in
            if parts.isPrepared { return }
            _ = try doorbell.descriptor()
            parts.descriptor = try Poller.makeDescriptor()
            parts.isPrepared = true
        }
    }

    /// The descriptor of the reactor's poller; nil where none was made, or somebody has it.
    func takePollerDescriptor() -> Descriptor? { pollerParts.withLock { $0.descriptor.take() } }

    /// Queues work and wakes the thread; false where the reactor has ended.
    func submit(_ request: ReactorRequest) -> Bool {
        guard requests.push(request) == .queued else { return false }
        doorbell.ring()
        return true
    }

    /// Whether there is a place for one more connection now.
    var hasRoom: Bool { connections.load(ordering: .relaxed) < maximumConnections }

    /// Takes a place for one more connection, where so many are left then; false where there is none. Before it is
    /// queued, so that the limit holds however many come at once.
    func reserve(leaving others: Int = 0) -> Bool {
        var taken = connections.load(ordering: .relaxed)
        // Never above the limit, not even for a moment: a listener that looks then would find no room, and nobody
        // would tell it of the room that there was.
        while taken < maximumConnections - others {
            let (isExchanged, found) = connections.weakCompareExchange(
                expected: taken, desired: taken + 1, ordering: .relaxed)
            if isExchanged { return true }
            taken = found
        }
        return false
    }

    /// No more connections; see `ReactorRequest.drain`. False where the reactor has ended.
    func drain() -> Bool {
        isDraining.store(true, ordering: .sequentiallyConsistent)
        return submit(.drain)
    }

    /// Gives a place back.
    func giveUpPlace() { connections.subtract(1, ordering: .relaxed) }

    /// From here on numbers are those of callbacks.
    static let firstCallback: UInt64 = 1 << 63
    private static let lastCallback = Atomic<UInt64>(firstCallback)

    /// A number for the next callback, which no call has.
    static func nextCallback() -> UInt64 { lastCallback.add(1, ordering: .relaxed).newValue }
}

/// Counters of a reactor that anybody may read while it runs. Times are in nanoseconds.
final class ReactorStatistics: Sendable {
    let requests = Atomic<Int>(0)
    let totalConnections = Atomic<Int>(0)
    let listeners = Atomic<Int>(0)
    let bytesIn = Atomic<Int>(0)
    let bytesOut = Atomic<Int>(0)
    let readWaits = Atomic<Int>(0)
    let callbackTime = Atomic<Int>(0)
    let errors = Atomic<Int>(0)
}

/// Who a reactor works for.
protocol ReactorHost: AnyObject {
    /// Tells somebody of the current exception, which a callback has raised, and clears it. With the GIL.
    ///
    /// `isExpected` says that it is a peer's doing, such as a connection reset.
    func report(exceptionIn callback: StaticString, of connection: Connection?, isExpected: Bool)
    /// Tells somebody of what is wrong with the system or, where it `isExpected`, with a peer, not with a protocol. No
    /// Python is run to describe it, other than by logging itself. With the GIL.
    func report(_ text: String, of connection: Connection, isExpected: Bool)
    /// From now on, or until now, a protocol is told of its end, for which it has more time than for what it does
    /// when the context has to end. With the GIL.
    func tidies(_ isTidying: Bool)
    /// A callback has returned: an interruption that was meant for it must not hit the next. With the GIL.
    func callbackIsOver()
    /// The reactor has made its poller, whose descriptor may be watched.
    func pollerMade(_ descriptor: Int32)
    /// The reactor will not use its poller any more: its descriptor is the host's now.
    func pollerAbandoned(_ descriptor: Int32)
    /// After a `drain`: nothing is left.
    func drained()
    /// What a factory makes for a connection. With the GIL.
    func produce(_ factory: PyPointer) throws(PythonError) -> Object
    /// Serves a descriptor by what a factory has made where that is no protocol of the reactor. The descriptor is the
    /// host's then, and the reactor is told of its end by a request. False where it is nothing for the host. With the GIL.
    func adopt(_ made: PyPointer, by factory: PyPointer, _ fd: Int32, info: PyPointer, data: PyPointer?)
        throws(PythonError) -> Bool
    /// Ends what was adopted, as soon as it has written what it has to. With the GIL.
    func drainAdopted()
    /// A connection is over, its descriptor closed. With the GIL.
    func ended(_ protocolObject: PyPointer)
}

extension ReactorHost {
    func produce(_ factory: PyPointer) throws(PythonError) -> Object {
        try Object(PyObject_CallObject(factory, nil))
    }

    func adopt(_ made: PyPointer, by factory: PyPointer, _ fd: Int32, info: PyPointer, data: PyPointer?)
        throws(PythonError) -> Bool
    { false }

    func drainAdopted() {}

    func ended(_ protocolObject: PyPointer) {}
}

/// Adds to a counter that only its own thread writes.
@inline(__always)
func count(_ counter: borrowing Atomic<Int>, _ number: Int = 1) { counter.add(number, ordering: .relaxed) }
