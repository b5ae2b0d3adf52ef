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

    /// Its place; set when it gets one.
    var token = Poller.Token(slot: .max, generation: .max)
    let protocolObject: PyPointer
    /// Whether the base class's `write_ready` serves, which needs no call into Python.
    let writesNatively: Bool
    /// What the poller was last told.
    var interest = Poller.Interest.read
    var mode = Mode.reading
    /// Not registered with the poller for now; `interest` says as what it will be again.
    var isOutOfPoller = false
    /// One of the protocol's methods runs.
    var isInCallback = false
    /// What came during that method: a signal that the protocol may write, and the wish to close.
    var isSignalled = false
    var isToBeClosed = false
    /// Nil once the connection is over: the descriptor is closed by then.
    private var descriptor: Descriptor?
    /// The number, which may be another's once the connection is over.
    let fd: Int32

    /// Takes over the descriptor and the reference to the protocol.
    init(_ descriptor: consuming Descriptor, protocolObject: consuming Object, writesNatively: Bool) {
        fd = descriptor.number
        self.descriptor = consume descriptor
        self.protocolObject = protocolObject.take()
        self.writesNatively = writesNatively
    }

    /// Whether it is still served.
    var isOpen: Bool { descriptor != nil }

    /// Closes the descriptor. The poller must have let go of it before.
    func closeDescriptor() {
        ServedDescriptors.shared.release(fd)
        descriptor = nil
    }
}
