import CPython
import Glibc
import Python
import Streams
import Synchronization

/// The native half of an `erlang.EventLoop`: what is ready, what is due, and what is watched.
///
/// It belongs to the thread that runs it. Everything needs the GIL, but for the part of a turn that waits, reads and
/// writes: meanwhile other threads may append to what is ready, and nothing else (`checkMayChange`).
final class LoopCore: @unchecked Sendable {
    /// While callbacks are ready, the poller is asked after so many nanoseconds.
    private static let pollEvery: Int64 = 50_000
    /// Timers that were cancelled are taken out when there are so many, and they are half of all.
    private static let cancelledAtLeast = 100

    let state: ModuleState
    /// The Python object that owns this; borrowed.
    var object: PyPointer?
    var ready = ObjectRing()
    var timers = TimerHeap()
    private var cancelledTimers = 0
    /// Handles that nobody refers to any more, and timers.
    private var spare: [PyPointer] = []
    private var spareTimers: [PyPointer] = []
    private static let mostSpare = 1024

    var watches = SlotTable<LoopWatch>()
    var watchesByDescriptor: [Int32: LoopWatch] = [:]
    var poller: Poller?
    /// What wakes the thread: the context's, where it runs on a context's thread.
    var doorbell = Doorbell()
    /// The descriptors that are watched for the sake of the thread.
    var bellDescriptor: Int32 = -1
    var innerDescriptors: [Int32] = []
    static let bell = Poller.Token(slot: .max, generation: 0)
    /// The poller of a reactor, or of another loop.
    static let inner = Poller.Token(slot: .max, generation: 1)

    /// The context's thread that runs it; nil for any other.
    unowned(unsafe) var thread: ContextThread?
    private(set) var isRunning = false
    /// A callback of the loop may be running: no turn may begin.
    private(set) var isInTurn = false
    /// The thread polls it whenever it waits.
    var isBackground = false
    /// It serves on its own, not for a call: what it calls has numbers by which the janitor knows what it would interrupt.
    private(set) var isOnItsOwn = false
    /// For how long, in nanoseconds, a turn calls what is ready before calls and connections have theirs.
    private static let patience: Int64 = 500_000
    /// The thread waits, without the GIL.
    var isPolling = false
    var isStopping = false
    var isClosed = false
    var isDebugging = false
    /// Something was made ready by another thread.
    let isCalled = Atomic<Bool>(false)
    private var polledAt: Int64 = 0

    var arena = ReadArena()
    var deliveries: [Delivery] = []
    private var delivered = 0
    /// Transports that have something to write.
    var dirty: [LoopTransport] = []
    /// What is being written, without the GIL.
    var flights: [StreamTransport] = []
    var datagramFlights: [DatagramFlight] = []
    /// Datagrams that were read.
    var datagrams: [ReceivedDatagram] = []
    /// Programs that this loop has started.
    var programs: [ObjectIdentifier: GuardedProgram] = [:]
    /// The connections of reactor protocols, from the first one on.
    var served: LoopReactor?
    /// Transports that are not closed, each with a reference to its object.
    var transports: [ObjectIdentifier: LoopTransport] = [:]

    init(_ state: ModuleState) { self.state = state }

    // MARK: What is ready

    /// A handle for `callback`, made ready. The context is the current one where there is none.
    @inline(__always)
    func callSoon(
        _ callback: PyPointer, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ context: PyPointer?
    ) throws(PythonError) -> Object {
        let handle = try HandleObject.make(
            state.handleType, callback, arguments, count, try LoopCore.context(context),
            reusing: spare.popLast())
        Py_IncRef(handle.pointer)
        ready.append(handle.pointer)
        return handle
    }

    func callSoon(_ callback: PyPointer, _ argument: PyPointer) throws(PythonError) {
        if isClosed { throw runtimeError("Event loop is closed") }
        let arguments: [PyPointer?] = [argument]
        try arguments.withUnsafeBufferPointer { (arguments) throws(PythonError) in
            _ = try callSoon(callback, arguments.baseAddress, 1, nil)
        }
    }

    func callAt(
        _ when: Double, _ callback: PyPointer, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int,
        _ context: PyPointer?
    ) throws(PythonError) -> Object {
        let handle = try HandleObject.make(
            state.timerHandleType, callback, arguments, count, try LoopCore.context(context),
            reusing: spareTimers.popLast())
        let fields = handle.pointer.cast(to: HandleObject.self)
        fields.pointee.when = when
        fields.pointee.core = .passUnretained(self)
        fields.pointee.isScheduled = true
        Py_IncRef(handle.pointer)
        timers.insert(handle.pointer, at: when)
        return handle
    }

    @inline(__always)
    private static func context(_ given: PyPointer?) throws(PythonError) -> Object {
        if let given, given != cpython_none() { return Object(retaining: given) }
        return try Object(cpython_copy_context())
    }

    /// Another thread has made something ready.
    func wake() {
        isCalled.store(true, ordering: .sequentiallyConsistent)
        doorbell.ring()
    }

    func timerCancelled() {
        cancelledTimers += 1
        guard cancelledTimers > LoopCore.cancelledAtLeast, cancelledTimers * 2 > timers.count else {
            return
        }
        cancelledTimers = 0
        let cancelled = timers.remove {
            isOurs($0) && $0.cast(to: HandleObject.self).pointee.isCancelled
        }
        for handle in cancelled {
            handle.cast(to: HandleObject.self).pointee.isScheduled = false
            putAside(handle, cpython_type(handle))
        }
    }

    /// Keeps a handle to be used again where nobody else refers to it.
    @inline(__always)
    private func putAside(_ handle: PyPointer, _ type: PyType?) {
        let isTimer = type == state.timerHandleType
        guard cpython_refcount(handle) == 1, !isClosed,
            (isTimer ? spareTimers.count : spare.count) < LoopCore.mostSpare
        else { return Py_DecRef(handle) }
        // Out of sight before it lets go: that may run code.
        HandleObject.clear(handle)
        if isTimer { spareTimers.append(handle) } else { spare.append(handle) }
    }

    /// Whether a handle is none of asyncio's own.
    @inline(__always)
    private func isOurs(_ handle: PyPointer) -> Bool {
        let type = cpython_type(handle)
        return type == state.handleType || type == state.timerHandleType
    }

    static func now() -> Double { Double(monotonicNanoseconds()) / 1e9 }

    // MARK: Running

    /// Runs until it is to stop, or something is raised that is to end it.
    func run() throws(PythonError) {
        guard !isInTurn else { throw runtimeError("This event loop is already running") }
        // Of a background loop it is the only thread that ever runs it.
        let outer = thread
        defer { thread = outer }
        try bind()
        try thread?.checkMayWait()
        isRunning = true
        defer {
            isRunning = false
            isStopping = false
        }
        var mustPoll = true
        repeat {
            try turn(mustPoll: mustPoll)
            mustPoll = false
        } while !isStopping
        if !dirty.isEmpty { try wait(0) }
    }

    /// One turn: waits where nothing is ready, and calls what is then.
    private func turn(mustPoll: Bool) throws(PythonError) {
        isInTurn = true
        defer { isInTurn = false }
        let wait = pause
        if mustPoll || wait != 0 || !dirty.isEmpty || isPollDue { try self.wait(wait) }
        try serve()
    }

    /// What a turn does when it has waited. For who waits for several loops.
    func serveInBackground() throws(PythonError) {
        isInTurn = true
        isOnItsOwn = true
        defer {
            isInTurn = false
            isOnItsOwn = false
        }
        try serve()
    }

    private func serve() throws(PythonError) {
        // First: what is made ready from here on is looked at before the next wait.
        isCalled.store(false, ordering: .sequentiallyConsistent)
        let began = thread == nil ? 0 : monotonicNanoseconds()
        try deliver()
        if let served, served.hasWork { try served.serve() }
        fireTimers()
        var left = ready.count
        while left > 0, let handle = ready.popFirst() {
            left &-= 1
            try call(handle)
            // What is left keeps its place: it is called in the next turn.
            if let thread, thread.hasOtherWork, monotonicNanoseconds() &- began > LoopCore.patience { return }
        }
    }

    /// Whether a wait has brought something that a turn is to see. Without the GIL, on the loop's thread.
    var hasEvents: Bool { delivered < deliveries.count || hasFlights || served?.hasWork ?? false }

    /// Whether another thread wants something to be done. From this one.
    var isAwaited: Bool {
        isCalled.load(ordering: .sequentiallyConsistent) || !(served?.inbox.requests.isEmpty ?? true)
    }

    /// For how many nanoseconds there is nothing to do; -1 is for ever.
    var pause: Int64 {
        if !ready.isEmpty || isStopping || delivered < deliveries.count || served?.hasWork ?? false {
            return 0
        }
        let most = served?.mustLookAgain ?? false ? LoopReactor.respite : -1
        guard let first = timers.first else { return most }
        let left = first.when - LoopCore.now()
        if left <= 0 { return 0 }
        let pause = left < 86_400 ? Int64(left * 1e9) + 1 : 86_400_000_000_000
        return most < 0 ? pause : min(pause, most)
    }

    private var isPollDue: Bool { monotonicNanoseconds() &- polledAt > LoopCore.pollEvery }

    private func fireTimers() {
        guard let first = timers.first else { return }
        let now = LoopCore.now() + 1e-9
        guard first.when < now else { return }
        while let next = timers.first, next.when < now, let handle = timers.popFirst() {
            guard isOurs(handle) else {
                ready.append(handle)
                continue
            }
            let fields = handle.cast(to: HandleObject.self)
            fields.pointee.isScheduled = false
            if fields.pointee.isCancelled {
                cancelledTimers = max(0, cancelledTimers - 1)
                putAside(handle, cpython_type(handle))
            } else {
                ready.append(handle)
            }
        }
    }

    /// Calls a handle, whose reference is taken over.
    @inline(__always)
    private func call(_ handle: PyPointer) throws(PythonError) {
        let type = cpython_type(handle)
        guard isOurs(handle) else { return try callForeign(Object(owning: handle)) }
        if !handle.cast(to: HandleObject.self).pointee.isCancelled {
            let outer = callBegins(in: handle.cast(to: HandleObject.self).pointee.context)
            let result = HandleObject.call(handle)
            callEnded(outer)
            if let result {
                Py_DecRef(result)
            } else {
                let held = Object(owning: handle)
                return try report(held.pointer)
            }
        }
        putAside(handle, type)
    }

    /// A handle of asyncio's own, as there are in debug mode: it catches what its callback raises.
    private func callForeign(_ handle: consuming Object) throws(PythonError) {
        guard let object else { return }
        let context = try Object(PyObject_GetAttr(handle.pointer, state.loopNames.context))
        let outer = callBegins(in: context.pointer)
        defer { callEnded(outer) }
        _ = try Object(cpython_call_method1(object, state.loopNames.runHandle, handle.pointer))
    }

    /// What a callback has raised goes to the exception handler, but what is to end the loop ends it.
    func report(_ handle: PyPointer) throws(PythonError) {
        if isEnd { throw PythonError() }
        guard let exception = Exception.take(), let object else { return }
        _ = try Object(
            cpython_call_method2(object, state.loopNames.reportError, exception.value.pointer, handle))
    }

    /// Whether what was raised is to end the loop.
    var isEnd: Bool {
        PyErr_ExceptionMatches(cpython_KeyboardInterrupt()) != 0
            || PyErr_ExceptionMatches(cpython_SystemExit()) != 0
            || PyErr_ExceptionMatches(state.interruption) != 0
    }

    private func deliver() throws(PythonError) {
        // With one connection there is one, which is not copied then.
        if delivered == 0, deliveries.count == 1, let only = deliveries.popLast() { try deliver(only) }
        while delivered < deliveries.count {
            let delivery = deliveries[delivered]
            delivered += 1
            try deliver(delivery)
        }
        if !deliveries.isEmpty { deliveries.removeAll(keepingCapacity: true) }
        if !datagrams.isEmpty { datagrams.removeAll(keepingCapacity: true) }
        delivered = 0
        arena.empty()
    }

    @inline(__always)
    private func deliver(_ delivery: Delivery) throws(PythonError) {
        switch delivery {
        case .data(let transport, let offset, let count):
            try transport.received(arena.bytes(offset, count))
        case .endOfStream(let transport): try transport.endOfStream()
        case .failed(let transport, let error): try transport.readFailed(error)
        case .readable(let transport): try transport.readIntoItsBuffer()
        case .writable(let transport): transport.roomIsThere()
        case .datagram(let transport, let index):
            let datagram = datagrams[index]
            try transport.received(arena.bytes(datagram.offset, datagram.count), from: datagram.source)
        case .datagramFailed(let transport, let error): try transport.failed(error)
        case .watched(let watch, let isReadable, let isWritable):
            if isReadable, let reader = watch.reader { ready.append(Py_NewRef(reader)) }
            if isWritable, let writer = watch.writer { ready.append(Py_NewRef(writer)) }
        }
    }

    // MARK: Waiting

    /// Writes what is to be written, waits for at most so many nanoseconds (-1: for ever), and reads.
    private func wait(_ nanoseconds: Int64) throws(PythonError) {
        polledAt = monotonicNanoseconds()
        if let thread { return try thread.wait(in: self, nanoseconds) }
        takeOff()
        isPolling = true
        let saved = PyEval_SaveThread()
        var isIdle = nanoseconds != 0
        if isIdle {
            doorbell.willPoll()
            // Announced first, looked at afterwards: who made something ready before saw us running and did not ring.
            isIdle = !isAwaited
        }
        poll(isIdle ? nanoseconds : 0)
        PyEval_RestoreThread(saved)
        isPolling = false
        try land()
        if PyErr_CheckSignals() != 0 { throw PythonError() }
    }

    /// The part of a wait that needs no GIL.
    func poll(_ nanoseconds: Int64) {
        let isDone = fly()
        let count = poller?.wait(nanoseconds: isDone ? nanoseconds : 0) ?? 0
        doorbell.didWake()
        polledAt = monotonicNanoseconds()
        // What a turn has not delivered, because something has ended it, comes first. Events come again.
        guard delivered == deliveries.count else { return }
        for index in 0..<count {
            guard let event = poller?.event(index) else { continue }
            if event.token.slot == LoopCore.bell.slot {
                if event.token == LoopCore.bell { doorbell.silence() }
                continue
            }
            guard let watch = watches[event.token] else { continue }
            note(event, of: watch)
        }
        served?.read()
    }

    @inline(__always)
    private func note(_ event: Poller.Event, of watch: LoopWatch) {
        guard let transport = watch.transport else {
            deliveries.append(.watched(watch, event.isReadable, event.isWritable))
            return
        }
        if watch.reader != nil || watch.writer != nil {
            deliveries.append(.watched(watch, event.isReadable, event.isWritable))
        }
        if event.isWritable, transport.wantsToWrite { deliveries.append(.writable(transport)) }
        if event.isReadable, transport.wantsToRead { transport.read() }
    }

    // MARK: The end

    /// Ends the connections of reactor protocols, which are told.
    func endServed() {
        guard let served else { return }
        served.end()
        self.served = nil
    }

    /// Forgets everything.
    func close() {
        endServed()
        isClosed = true
        for watch in watches.elements { forget(watch) }
        for program in programs.values { program.close() }
        poller = nil
        // Its descriptor goes now: tasks that were cancelled may keep the loop until memory is collected.
        doorbell = Doorbell()
        bellDescriptor = -1
        innerDescriptors = []
        let left = transports.values.map(\.object)
        transports = [:]
        dirty = []
        deliveries = []
        datagrams = []
        delivered = 0
        while let handle = ready.popFirst() { letGo(handle) }
        while let handle = timers.popFirst() { letGo(handle) }
        while let handle = spare.popLast() ?? spareTimers.popLast() { Py_DecRef(handle) }
        for object in left { Py_DecRef(object) }
        // Python may have it for long yet; a context's doorbell, with its descriptor, is to end with that.
        doorbell = Doorbell()
        arena.free()
        arena = ReadArena()
    }

    /// Nobody will call it: what it refers to may refer to it.
    private func letGo(_ handle: PyPointer) {
        if isOurs(handle) {
            handle.cast(to: HandleObject.self).pointee.isScheduled = false
            HandleObject.clear(handle)
        }
        Py_DecRef(handle)
    }

    deinit {
        ready.free()
        timers.free()
        arena.free()
    }
}
