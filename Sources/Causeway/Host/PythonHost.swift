import Beam
import CErlNif
import CPlatform
import CPython
import Python
import Streams
import Synchronization

/// Python inside the BEAM: its main interpreter is started once, on a thread that never ends.
final class PythonHost: Sendable {
    static let shared = PythonHost()

    private struct Started {
        var isStarting = false
        var packages = ""
        var main: Interpreter?
        var version = ""
    }

    private let started = Mutex(Started())

    /// The main interpreter; nil before it runs.
    var main: Interpreter? { started.withLock { $0.main } }
    /// The folder that holds the package `erlang`.
    var packages: String { started.withLock { $0.packages } }
    /// What `sys.version` says.
    var version: String { started.withLock { $0.version } }

    /// What Python is started with.
    struct Settings: Sendable {
        /// What `sys.executable` will be.
        var executable: String
        /// The folder that holds the package `erlang`.
        var packages: String
        /// Who is told `{causeway, started}` or `{causeway, {start_failed, Text}}`.
        var requester: ErlNifPid
    }

    /// Starts Python on a thread of its own; false when that was done before.
    func start(_ settings: Settings) throws(Errno) -> Bool {
        let isFirst = started.withLock { started in
            defer { started.isStarting = true }
            started.packages = settings.packages
            return !started.isStarting
        }
        guard isFirst else { return false }
        try Timekeeper.shared.start()
        try NativeThread.start(name: "causeway-python", stackSize: pythonStackSize) {
            PythonHost.shared.main(settings)
        }
        return true
    }

    /// Python's main thread: initialises it, then does the janitor's work for ever.
    private func main(_ settings: Settings) {
        let messages = Environment()
        do throws(PythonError) {
            initialise(settings)
            let main = try Interpreter.boot(.worker, packages: settings.packages)
            started.withLock {
                $0.main = main
                $0.version = String(cString: Py_GetVersion())
            }
            let threadState = ThreadState(releasing: ())
            send(to: settings.requester, messages, makeTuple(messages.pointer, atoms.causeway, atoms.started))
            main.state.janitor.run(main.state, threadState: threadState)
        } catch {
            let text = Exception.takeText() ?? "unknown"
            let reason = makeTuple(messages.pointer, atoms.startFailed, makeBinary(messages.pointer, text))
            _ = PyEval_SaveThread()
            send(to: settings.requester, messages, makeTuple(messages.pointer, atoms.causeway, reason))
        }
    }

    private func initialise(_ settings: Settings) {
        // A bytes of 1 MB would otherwise cost 256 page faults, 20 times the copy.
        cplatform_keep_large_blocks()
        // Under LANG=C, as in containers, print('é') would raise otherwise.
        cpython_enable_utf8_mode()
        // Python reads the name after initialisation too: it is never freed.
        if let name = Py_DecodeLocale(settings.executable, nil) { _ = cpython_set_program_name(name) }
        ProcessGuard.install()
        // Python keeps the pointer to the name: a temporary string would be gone.
        PyImport_AppendInittab(Python.cString("_causeway"), PyInit__causeway)
        // 0: no signal handlers. Signals are the BEAM's.
        Py_InitializeEx(0)
    }
}
