import CPython
import Python
import Streams

/// A descriptor that the reactor serves, and the protocol that serves it.
final class Connection {
    /// What the connection waits for.
    enum Mode {
        case reading
        /// There is something to write, and no room.
        case writing
        /// The protocol said `async_pending`.
        case waitingForSignal
        /// What is left is written, then the connection is closed.
        case draining
    }

    /// How the descriptor is read.
    enum Kind {
        case stream
        case datagrams
        /// It accepts connections: then `protocolObject` is the dict from which their `client_info` is made.
        case listener
    }

    let kind: Kind
    /// Its place; set when it gets one.
    var token = Poller.Token(slot: .max, generation: .max)
    let protocolObject: PyPointer
    /// Which methods of the base class the protocol's class has changed.
    let overrides: Overrides
    /// Of a listener that has its own: what makes the protocols of what it accepts.
    var factory: PyPointer?
    /// What the poller was last told.
    var interest = Poller.Interest.read
    var mode = Mode.reading
    /// Not registered with the poller for now; `interest` says as what it will be again.
    var isOutOfPoller = false
    /// Nothing comes from the peer any more, but the protocol goes on writing.
    var isReadOver = false
    /// One of the protocol's methods runs.
    var isInCallback = false
    /// What came during that method: a signal that the protocol may write, and the wish to close.
    var isSignalled = false
    var isToBeClosed = false
    /// Answers to datagrams for which there was no room, oldest first.
    var unsentDatagrams: [Datagram] = []
    /// The same for each receiver that has none, while others do.
    var waitingAnswers: [WaitingAnswers] = []
    /// Datagrams that were read while the protocol had not done with the one before, oldest first.
    var heldDatagrams: [Datagram] = []
    /// Nil once the connection is over: the descriptor is closed by then.
    private var descriptor: Descriptor?
    /// The number, which may be another's once the connection is over.
    let fd: Int32

    /// Takes over the descriptor and the reference to the protocol.
    init(
        _ descriptor: consuming Descriptor, _ kind: Kind, protocolObject: consuming Object,
        overrides: Overrides
    ) {
        fd = descriptor.number
        self.descriptor = consume descriptor
        self.kind = kind
        self.protocolObject = protocolObject.take()
        self.overrides = overrides
    }

    /// Whether it is still served.
    var isOpen: Bool { descriptor != nil }

    /// Sockets are read and written without waiting whatever their mode is; for everything else, and to accept,
    /// the mode has to say so.
    func makeNonBlocking() throws(Errno) {
        try descriptor?.makeNonBlocking()
    }

    /// Closes the descriptor. The poller must have let go of it before.
    func closeDescriptor() {
        ServedDescriptors.shared.release(fd)
        descriptor = nil
    }
}

/// Methods of the base class that a protocol's class has changed: the others need no call into Python.
struct Overrides: OptionSet {
    let rawValue: UInt8
    static let connectionMade = Overrides(rawValue: 1)
    static let connectionLost = Overrides(rawValue: 2)
    static let writeReady = Overrides(rawValue: 4)
    static let eofReceived = Overrides(rawValue: 8)
}
