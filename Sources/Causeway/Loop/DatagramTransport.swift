import CPython
import Glibc
import Python
import Streams

/// The native half of a transport of datagrams.
final class DatagramTransport: LoopTransport {
    /// What asyncio counts for a datagram that waits, besides its bytes.
    private static let overhead = 8
    /// After how many seconds it is tried again, where the poller does not tell of room.
    private static let pause = 0.005

    let isUnix: Bool
    let isConnected: Bool
    private var datagrams: [OutgoingDatagram] = []
    /// It waits for a receiver, of whose room the poller knows nothing.
    private var waitsForReceiver = false
    /// The address that came last or was asked for last, and the object that says it: mostly it is the same again.
    private var source = SocketAddress()
    private var sourceObject: PyPointer?
    /// The one that may be sent to, where the endpoint was made for one.
    private(set) var onlyAddress: PyPointer?
    private var destination = SocketAddress()
    private var destinationObject: PyPointer?

    init(
        _ core: LoopCore, _ fd: Int32, _ object: PyPointer, isUnix: Bool, isConnected: Bool,
        context: consuming Object
    ) {
        self.isUnix = isUnix
        self.isConnected = isConnected
        super.init(core, fd, object, context: context)
    }

    override var wantsToWrite: Bool { needsRoom && !waitsForReceiver }
    override var isWriting: Bool { !datagrams.isEmpty || isInFlight }

    // MARK: Receiving

    override func read() { core.readDatagrams(of: self) }

    func received(_ bytes: UnsafeRawBufferPointer, from peer: SocketAddress) throws(PythonError) {
        guard lost == 0, !isClosing, let receiver = protocolObject else { return }
        let held = Object(retaining: receiver)
        let data = try newBytes(bytes)
        let from = try object(of: peer)
        let names = core.state.loopNames
        try reporting(names.datagramReceived) {
            cpython_call_method2(held.pointer, names.datagramReceived, data.pointer, from.pointer)
        }
    }

    private func object(of peer: SocketAddress) throws(PythonError) -> Object {
        if let sourceObject, peer == source { return Object(retaining: sourceObject) }
        let made = try peer.object()
        let old = sourceObject
        source = peer
        Py_IncRef(made.pointer)
        sourceObject = made.pointer
        Py_DecRef(old)
        return made
    }

    /// A read or a write has failed, of which the protocol is told; it goes on.
    func failed(_ error: Errno) throws(PythonError) {
        guard lost == 0 else { return }
        _ = osError(error.code)
        try tellError()
    }

    /// Tells the protocol of the exception that is set.
    private func tellError() throws(PythonError) {
        guard let exception = Exception.take(), let receiver = protocolObject else { return }
        let held = Object(retaining: receiver)
        let names = core.state.loopNames
        try reporting(names.errorReceived) {
            cpython_call_method1(held.pointer, names.errorReceived, exception.value.pointer)
        }
    }

    /// Runs a method of the protocol. What it raises is reported, and no more.
    private func reporting(_ name: PyPointer, _ body: () -> PyPointer?) throws(PythonError) {
        if let answer = inContext(body) { return Py_DecRef(answer) }
        if core.isEnd { throw PythonError() }
        guard let exception = Exception.take() else { return }
        _ = try Object(
            cpython_call_method2(object, core.state.loopNames.flowError, exception.value.pointer, name))
    }

    // MARK: Sending

    /// Takes a `bytes` to be sent, of which it is given the reference: to an address in one of Python's forms, or to
    /// the peer of a connected socket.
    func send(_ data: consuming Object, to address: PyPointer?) throws(PythonError) {
        let destination: SocketAddress
        do throws(PythonError) {
            destination = isConnected ? SocketAddress() : try self.destination(address)
        } catch {
            // A name that nobody knows is the system's affair, as what cannot be reached.
            guard PyErr_ExceptionMatches(cpython_OSError()) != 0 else { throw error }
            return try tellError()
        }
        let count = PyBytes_Size(data.pointer)
        guard let start = PyBytes_AsString(data.pointer) else { throw PythonError() }
        let chunk = Chunk(object: data.take(), start: UnsafeRawPointer(start), count: count)
        datagrams.append(OutgoingDatagram(chunk: chunk, destination: destination))
        size += count + DatagramTransport.overhead
        try writeSoon()
    }

    /// Nothing may be sent to other addresses.
    func allow(only address: PyPointer) {
        let old = onlyAddress
        Py_IncRef(address)
        onlyAddress = address
        Py_DecRef(old)
    }

    private func destination(_ address: PyPointer?) throws(PythonError) -> SocketAddress {
        // The kernel says that there is none.
        guard let address, address != cpython_none() else { return SocketAddress() }
        if address == destinationObject { return destination }
        if address == sourceObject { return source }
        let found = try resolved(address)
        let old = destinationObject
        destination = found
        Py_IncRef(address)
        destinationObject = address
        Py_DecRef(old)
        return found
    }

    private func resolved(_ address: PyPointer) throws(PythonError) -> SocketAddress {
        do throws(PythonError) { return try SocketAddress.from(address) } catch {
            if PyErr_ExceptionMatches(cpython_OverflowError()) != 0 { throw error }
            // A name, as Python has it, or what is none at all.
            PyErr_Clear()
            let numeric = try Object(
                cpython_call_method1(object, core.state.loopNames.resolve, address))
            return try SocketAddress.from(numeric.pointer)
        }
    }

    override func writeNow() throws(PythonError) {
        guard var flight = flight() else { return }
        flight.fly()
        try land(flight)
    }

    override func takeOff() { if let flight = flight() { core.datagramFlights.append(flight) } }

    private func flight() -> DatagramFlight? {
        isDirty = false
        guard !isInFlight, lost == 0, !datagrams.isEmpty else { return nil }
        isInFlight = true
        defer { datagrams = [] }
        return DatagramFlight(
            self, datagrams, isAwaited: isClosing || isProtocolPaused || size > LoopTransport.high)
    }

    /// Takes back what was not sent.
    func land(_ flight: DatagramFlight) throws(PythonError) {
        isInFlight = false
        let done = flight.datagrams[..<flight.sent]
        defer { for datagram in done { Py_DecRef(datagram.chunk.object) } }
        let rest = flight.datagrams[flight.sent...]
        guard lost == 0 else {
            for datagram in rest { Py_DecRef(datagram.chunk.object) }
            return
        }
        for datagram in done { size -= datagram.chunk.count + DatagramTransport.overhead }
        datagrams.insert(contentsOf: rest, at: 0)
        needsRoom = !rest.isEmpty
        waitsForReceiver = needsRoom && isUnix && !isConnected
        if waitsForReceiver { try tryAgainLater() }
        if needsRoom { try updateWatch() } else { try updateWatchIfAny() }
        if !needsRoom, !datagrams.isEmpty { markDirty() }
        for error in flight.errors { try failed(error) }
        try resumeProtocolIfEmpty()
        if datagrams.isEmpty, isClosing, lost == 0 { try scheduleLost(nil) }
    }

    private func tryAgainLater() throws(PythonError) {
        let method = try Object(PyObject_GetAttr(object, core.state.loopNames.tryAgain))
        _ = try core.callAt(LoopCore.now() + DatagramTransport.pause, method.pointer, nil, 0, nil)
    }

    /// The receiver may have room by now.
    func tryAgain() {
        waitsForReceiver = false
        roomIsThere()
    }

    // MARK: The end

    override func dropWritten() {
        let dropped = datagrams
        datagrams = []
        size = 0
        for datagram in dropped { Py_DecRef(datagram.chunk.object) }
    }

    override func dropRead() {
        let parts = [sourceObject, destinationObject, onlyAddress]
        sourceObject = nil
        destinationObject = nil
        onlyAddress = nil
        for part in parts { Py_DecRef(part) }
    }
}
