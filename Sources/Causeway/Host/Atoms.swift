import Beam

/// The atoms that the core knows by name. They are immediate values that never change.
struct Atoms: Sendable {
    var ok: Term = 0
    var error: Term = 0
    var undefined: Term = 0
    var `true`: Term = 0
    var `false`: Term = 0
    var none: Term = 0
    var `nil`: Term = 0
    var nan: Term = 0
    var infinity: Term = 0
    var negInfinity: Term = 0
    var bytes: Term = 0
    var call: Term = 0
    var eval: Term = 0
    var exec: Term = 0
    var collect: Term = 0
    var setup: Term = 0
    var stream: Term = 0
    var next: Term = 0
    var data: Term = 0
    var pyStream: Term = 0
    var full: Term = 0
    var closed: Term = 0
    var cancelled: Term = 0
    var sent: Term = 0
    var timeout: Term = 0
    var causeway: Term = 0
    var started: Term = 0
    var startFailed: Term = 0
    var stopped: Term = 0
    var contextStopped: Term = 0
    var idle: Term = 0
    var activity: Term = 0
    var runningMs: Term = 0
    var drained: Term = 0
    var listeners: Term = 0
    var readWaits: Term = 0
    var callbackUs: Term = 0
    var lockWaitUs: Term = 0
    var lockHoldUs: Term = 0
    var worker: Term = 0
    var subinterp: Term = 0
    var owngil: Term = 0
    var unsupported: Term = 0
    var log: Term = 0
    var debug: Term = 0
    var type: Term = 0
    var message: Term = 0
    var traceback: Term = 0
    var cause: Term = 0
    var file: Term = 0
    var line: Term = 0
    var function: Term = 0
    var code: Term = 0
    var fd: Term = 0
    var peer: Term = 0
    var callback: Term = 0
    var id: Term = 0
    var activeConnections: Term = 0
    var totalConnections: Term = 0
    var totalRequests: Term = 0
    var maxConnections: Term = 0
    var bytesIn: Term = 0
    var bytesOut: Term = 0
    var calls: Term = 0
    var batches: Term = 0
    var parks: Term = 0
    var queued: Term = 0
    var errors: Term = 0
    var noProtocolFactory: Term = 0
    var badf: Term = 0
    var eperm: Term = 0
    var eexist: Term = 0

    /// No atoms yet: constant, so that the global below costs nothing to reach.
    init() {}

    /// All of them.
    init(_ env: EnvPointer?) {
        func atom(_ name: StaticString) -> Term { Atom(env, name).term }
        ok = atom("ok")
        error = atom("error")
        undefined = atom("undefined")
        `true` = atom("true")
        `false` = atom("false")
        none = atom("none")
        `nil` = atom("nil")
        nan = atom("nan")
        infinity = atom("infinity")
        negInfinity = atom("neg_infinity")
        bytes = atom("bytes")
        call = atom("call")
        eval = atom("eval")
        exec = atom("exec")
        collect = atom("collect")
        setup = atom("setup")
        stream = atom("stream")
        next = atom("next")
        data = atom("data")
        pyStream = atom("py_stream")
        full = atom("full")
        closed = atom("closed")
        cancelled = atom("cancelled")
        sent = atom("sent")
        timeout = atom("timeout")
        causeway = atom("causeway")
        started = atom("started")
        startFailed = atom("start_failed")
        stopped = atom("stopped")
        contextStopped = atom("context_stopped")
        idle = atom("idle")
        activity = atom("activity")
        runningMs = atom("running_ms")
        drained = atom("drained")
        listeners = atom("listeners")
        readWaits = atom("read_waits")
        callbackUs = atom("callback_us")
        lockWaitUs = atom("gil_wait_us")
        lockHoldUs = atom("gil_hold_us")
        worker = atom("worker")
        subinterp = atom("subinterp")
        owngil = atom("owngil")
        unsupported = atom("unsupported")
        log = atom("log")
        debug = atom("debug")
        type = atom("type")
        message = atom("message")
        traceback = atom("traceback")
        cause = atom("cause")
        file = atom("file")
        line = atom("line")
        function = atom("function")
        code = atom("code")
        fd = atom("fd")
        peer = atom("peer")
        callback = atom("callback")
        id = atom("id")
        activeConnections = atom("active_connections")
        totalConnections = atom("total_connections")
        totalRequests = atom("total_requests")
        maxConnections = atom("max_connections")
        bytesIn = atom("bytes_in")
        bytesOut = atom("bytes_out")
        calls = atom("calls")
        batches = atom("batches")
        parks = atom("parks")
        queued = atom("queued")
        errors = atom("errors")
        noProtocolFactory = atom("no_protocol_factory")
        badf = atom("badf")
        eperm = atom("eperm")
        eexist = atom("eexist")
    }
}

/// Filled once while the NIF library loads, before any other code of it can run; read-only afterwards.
/// In plain python3 it stays empty and is never read.
nonisolated(unsafe) var atoms = Atoms()
