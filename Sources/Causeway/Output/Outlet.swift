import Beam
import CErlNif
import CPython
import Glibc
import Python
import Streams

/// What one thread of Python writes to `sys.stdout` and `sys.stderr`, on its way to the Erlang process
/// `py_output`. Only for that thread.
///
/// Lines go as soon as they are complete. A thread is at most `window` bytes ahead of what `py_output` has
/// passed on: then it waits, without the GIL.
final class Outlet: @unchecked Sendable {
    /// Which of the two streams.
    enum Stream { case output, errors }

    /// A line that is not complete, and on whose behalf it was begun.
    private struct Pending {
        var bytes: [UInt8] = []
        var process: Term = 0
    }

    private static let window = 65536
    /// The most that goes in one message.
    private static let pieceSize = 32768

    private var output = Pending()
    private var errors = Pending()
    /// How many bytes were sent since `py_output` was last asked whether it has passed them on.
    private var unconfirmed = 0
    private var unconfirmedEvents = 0
    private let messages = Environment()
    private var spin = Spin()

    // MARK: Whose it is

    /// The outlet of the calling thread, and its context if it is a context's.
    static func ofThisThread() -> (Outlet, Context?) {
        if let context = ContextThread.current?.context { return (context.outlet, context) }
        if let known = pthread_getspecific(key) {
            return (Unmanaged<Outlet>.fromOpaque(known).takeUnretainedValue(), nil)
        }
        let made = Outlet()
        pthread_setspecific(key, Unmanaged.passRetained(made).toOpaque())
        return (made, nil)
    }

    /// Of a thread that is no context's: what it has not ended a line of goes when it ends.
    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { outlet in
            guard let outlet else { return }
            Unmanaged<Outlet>.fromOpaque(outlet).takeRetainedValue().flush(nil)
        }
        return key
    }()

    /// The process on whose behalf the thread runs; `undefined` where there is none.
    private func process(_ context: Context?) -> Term {
        guard let context else { return atoms.undefined }
        return context.beneficiary.pid
    }

    // MARK: Writing, with the GIL

    /// Takes text in UTF-8.
    func write(_ bytes: UnsafeRawBufferPointer, to stream: Stream, _ context: Context?) {
        switch stream {
        case .output: write(bytes, stream, &output, context)
        case .errors: write(bytes, stream, &errors, context)
        }
    }

    private func write(
        _ bytes: UnsafeRawBufferPointer, _ stream: Stream, _ pending: inout Pending, _ context: Context?
    ) {
        let process = process(context)
        context?.taskOwner?.pointer.cast(to: TaskOwnerObject.self).pointee.hasPrinted = true
        // A call that is served while another waits for Erlang does not continue its line.
        if process != pending.process, !pending.bytes.isEmpty { send(stream, &pending, context) }
        pending.process = process
        var rest = bytes[...]
        while pending.bytes.count + rest.count > Outlet.pieceSize {
            let end = Outlet.boundary(rest, Outlet.pieceSize - pending.bytes.count)
            pending.bytes.append(contentsOf: rest[..<end])
            rest = rest[end...]
            send(stream, &pending, context)
            confirmWhereMuchIsUnconfirmed(context)
        }
        guard let newline = rest.lastIndex(of: UInt8(ascii: "\n")) else {
            return pending.bytes.append(contentsOf: rest)
        }
        pending.bytes.append(contentsOf: rest[...newline])
        send(stream, &pending, context)
        pending.bytes.append(contentsOf: rest[(newline + 1)...])
        confirmWhereMuchIsUnconfirmed(context)
    }

    /// Where at most that many bytes end that do not cut a character.
    private static func boundary(_ bytes: Slice<UnsafeRawBufferPointer>, _ count: Int) -> Int {
        var end = bytes.startIndex + min(max(0, count), bytes.count)
        while end > bytes.startIndex, end < bytes.endIndex, bytes[end] & 0xC0 == 0x80 { end -= 1 }
        return end
    }

    /// Sends the lines that are not complete. The GIL is not needed.
    func flush(_ context: Context?) {
        if !output.bytes.isEmpty { send(.output, &output, context) }
        if !errors.bytes.isEmpty { send(.errors, &errors, context) }
    }

    /// Sends an event for Erlang's logger, which `encode` makes, and which takes about `size` bytes there.
    func log(
        _ context: Context?, size: Int, _ encode: (EnvPointer?) throws(PythonError) -> Term
    ) throws(PythonError) {
        let env = messages.pointer
        let details: Term
        do throws(PythonError) { details = try encode(env) } catch {
            messages.clear()
            throw error
        }
        sendEvent(atoms.log, process(context), details, size, context)
        confirmWhereMuchIsUnconfirmed(context)
    }

    // MARK: The end of a call, with the GIL

    /// A call begins, perhaps on top of another: returns what `endCall` is to be given.
    @inline(__always)
    func beginCall() -> Int {
        let outer = unconfirmed
        unconfirmed = 0
        return outer
    }

    /// A call ends: what it has written goes before its answer does.
    @inline(__always)
    func endCall(_ outer: Int, _ context: Context) {
        if unconfirmed > 0 || !output.bytes.isEmpty || !errors.bytes.isEmpty { finishCall(context) }
        unconfirmed = outer
    }

    private func finishCall(_ context: Context) {
        flush(context)
        if unconfirmed > 0 { confirm(process(context), context) }
    }

    /// Has a body run when what was printed on behalf of a process is passed on. On whatever thread: it is given the
    /// environment to send from.
    func whenPassedOn(
        for process: ErlNifPid, _ context: Context, _ body: @escaping @Sendable (EnvPointer?) -> Void
    ) {
        flush(context)
        let env = messages.pointer
        // Where there is nobody to ask, or no answer, the end of the ticket is that.
        guard let term = resourceTypes.outputTicket.makeTerm(env, OutputTicket(whenTaken: body)) else {
            return body(nil)
        }
        _ = send(makeTuple(env, atoms.sync, makeTuple(env, process.pid, term)))
    }

    // MARK: Messages

    private func send(_ stream: Stream, _ pending: inout Pending, _ context: Context?) {
        let env = messages.pointer
        let size = pending.bytes.count
        guard let text = pending.bytes.withUnsafeBytes({ makeBinary(env, $0) }) else { return }
        pending.bytes.removeAll(keepingCapacity: size <= Outlet.pieceSize)
        switch stream {
        case .output:
            guard send(makeTuple(env, atoms.output, makeTuple(env, pending.process, text))) else { return }
            unconfirmed += size
        case .errors: sendEvent(atoms.stderr, pending.process, text, size, context)
        }
    }

    private func sendEvent(_ kind: Term, _ process: Term, _ details: Term, _ size: Int, _ context: Context?) {
        let env = messages.pointer
        let identifier = context.map { enif_make_long(env, $0.identifier) } ?? atoms.undefined
        if send(makeTuple(env, kind, makeTuple(env, process, identifier, details))) {
            unconfirmedEvents += size
        }
    }

    /// Without the application nobody is there to print, and the text is lost.
    private func send(_ content: Term) -> Bool {
        var process = ErlNifPid()
        guard enif_whereis_pid(nil, atoms.pyOutput, &process) != 0 else {
            messages.clear()
            return false
        }
        return Beam.send(to: process, messages, makeTuple(messages.pointer, atoms.causeway, content))
    }

    private func confirmWhereMuchIsUnconfirmed(_ context: Context?) {
        if unconfirmed > Outlet.window {
            confirm(process(context), context)
            unconfirmed = 0
        }
        if unconfirmedEvents > Outlet.window {
            confirm(atoms.log, context)
            unconfirmedEvents = 0
        }
    }

    /// Waits until what was sent on behalf of a process, or to the log, is passed on.
    private func confirm(_ destination: Term, _ context: Context?) {
        let env = messages.pointer
        let ticket = OutputTicket(context: context)
        guard let term = resourceTypes.outputTicket.makeTerm(env, ticket),
            send(makeTuple(env, atoms.sync, makeTuple(env, destination, term)))
        else { return }
        let thread = PyEval_SaveThread()
        if !spin.wait(until: { ticket.isTaken }) {
            ticket.wait()
            spin.woken()
        }
        PyEval_RestoreThread(thread)
    }
}
