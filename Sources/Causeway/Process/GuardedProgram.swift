import CPlatform
import CPython
import Python
import Streams

/// A program that an event loop of Python's has started inside the BEAM: the connection to its guardian. With the end
/// of that the guardian ends the program and all that it has started; and it ends with the loop, with the context, and
/// with the node. Everything needs the GIL.
final class GuardedProgram {
    private var control: Descriptor?
    private unowned(unsafe) var core: LoopCore?
    /// The context's thread that has started it.
    private unowned(unsafe) var thread: ContextThread?

    init(_ control: consuming Descriptor, of core: LoopCore) {
        self.control = consume control
        self.core = core
        thread = ContextThread.current.flatMap { $0.runs(core.state) ? $0 : nil }
        core.programs[ObjectIdentifier(self)] = self
        thread?.programs[ObjectIdentifier(self)] = self
    }

    /// What the loop watches; -1 when it is closed.
    var descriptor: Int32 { control?.number ?? -1 }

    /// What the guardian tells next; nil where that is to come. When there is nobody any more, nothing of it is left.
    func event() -> GuardianEvent? {
        let socket = descriptor
        guard socket >= 0 else { return .gone }
        do throws(Errno) {
            let message = try Descriptor.receive(atMost: GuardianEvent.mostBytes, on: socket)
            // Without a word, or with one that is none, it is lost.
            if let message, let event = try? GuardianEvent(decoding: message.bytes) { return event }
            return .gone
        } catch { return error.code == EAGAIN ? nil : .gone }
    }

    /// Tells the guardian something. False where there is none any more.
    func tell(_ command: GuardianCommand) -> Bool {
        let socket = descriptor
        guard socket >= 0 else { return false }
        do throws(Errno) {
            try Descriptor.send(command.encoded, on: socket)
            return true
        } catch { return false }
    }

    /// Lets go of it: what still runs is ended. Any number of times.
    func close() {
        guard let control = control.take() else { return }
        if let core {
            // Another thread may wait in the poller: then it is the kernel that takes the descriptor out.
            if (try? core.remove(.read, control.number)) == nil { PyErr_Clear() }
            core.programs[ObjectIdentifier(self)] = nil
        }
        thread?.programs[ObjectIdentifier(self)] = nil
        core = nil
        thread = nil
    }
}

/// The struct of `_causeway._Program`.
struct ProgramObject {
    var head: PyObject
    private var reference: Unmanaged<GuardedProgram>?

    static func make(_ type: PyType, _ program: GuardedProgram) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: ProgramObject.self).pointee.reference = .passRetained(program)
        return object
    }

    private static func program(_ me: PyPointer?) throws(PythonError) -> GuardedProgram {
        guard let program = me?.cast(to: ProgramObject.self).pointee.reference?.takeUnretainedValue() else {
            throw typeError("a program is needed")
        }
        return program
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._Program", ProgramObject.self, flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_doc, doc: "A program that an event loop has started inside the BEAM."),
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    if let reference = me.cast(to: ProgramObject.self).pointee.reference {
                        reference.takeUnretainedValue().close()
                        reference.release()
                    }
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method("fileno", "fileno($self, /)\n--\n\nWhat is readable when there is an event; -1 if closed.")
            {
                me, _, _ in
                returning { () throws(PythonError) in
                    try Object(PyLong_FromLong(Int(try ProgramObject.program(me).descriptor))).take()
                }
            },
            method(
                "event",
                "event($self, /)\n--\n\nWhat has become of it: ('started', pid), ('failed', step, errno, detail), ('exited', returncode, alone), ('gone',), or None where nothing has yet."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    guard let event = try ProgramObject.program(me).event() else { return newNone() }
                    return try event.object().take()
                }
            },
            method(
                "send_signal",
                "send_signal($self, number, whole_tree, /)\n--\n\nSend a signal to it, or to all that it has started, too; whether it may have got it."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let first = arguments?[0], let whole = arguments?[1] else {
                        throw typeError("send_signal() takes a number and a bool")
                    }
                    guard let number = try integer(first).flatMap({ Int32(exactly: $0) }),
                        (1...64).contains(number)
                    else { throw valueError("a signal is a number from 1 to 64, not \(describe(first))") }
                    let target: GuardianCommand.Target = whole == cpython_true() ? .tree : .program
                    return newBool(try ProgramObject.program(me).tell(.signal(number, to: target)))
                }
            },
            method("close", "close($self, /)\n--\n\nEnd what is left of it. Any number of times.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try ProgramObject.program(me).close()
                    return newNone()
                }
            },
            PyMethodDef(),
        ]
    }
}

extension GuardianEvent {
    /// As `event()` has it.
    fileprivate func object() throws(PythonError) -> Object {
        switch self {
        case .started(let pid):
            return try tuple("started", [try Object(PyLong_FromLong(Int(pid))).take()])
        case .failed(let step, let error, let detail):
            let name = try newString("\(step.name)").take()
            let number = try Object(PyLong_FromLong(Int(error))).take()
            let text = try Object(
                detail.withUnsafeBytes {
                    PyBytes_FromStringAndSize($0.bindMemory(to: CChar.self).baseAddress, $0.count)
                }
            ).take()
            return try tuple("failed", [name, number, text])
        case .exited(let status, let isAlone):
            return try tuple(
                "exited", [try Object(PyLong_FromLong(status.returnCode)).take(), newBool(isAlone)])
        case .gone: return try tuple("gone", [])
        }
    }

    /// Takes over the references to the parts.
    private func tuple(_ name: StaticString, _ parts: [PyPointer]) throws(PythonError) -> Object {
        let tuple = try Object(PyTuple_New(1 + parts.count))
        PyTuple_SetItem(tuple.pointer, 0, try newString("\(name)").take())
        for (index, part) in parts.enumerated() { PyTuple_SetItem(tuple.pointer, 1 + index, part) }
        return tuple
    }
}

extension Int32 {
    /// What `wait(2)` tells, as `subprocess` has it: the status, or minus the number of a signal.
    fileprivate var returnCode: Int {
        if cplatform_has_exited(self) != 0 { return Int(cplatform_exit_status(self)) }
        return 0 - Int(cplatform_end_signal(self))
    }
}
