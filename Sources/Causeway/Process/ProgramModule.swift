import CPython
import Glibc
import Python
import Streams

/// The function of `_causeway` by which event loops start programs inside the BEAM.
enum ProgramModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_launch",
                "_launch($module, loop, path, arguments, environment, directory, accounts, umask, stdio, /)\n--\n\nHave a program started by a guardian; None where the helper that does so does not run.\n\nTexts are bytes, accounts is (user, group, groups), each a number, bytes or None, and stdio has three descriptors, -1 for /dev/null, and -2 for where standard output goes, and those that it inherits beside. Raises BlockingIOError where the helper is busy."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("_launch")
                    guard count == 8, let arguments, let loop = arguments[0] else {
                        throw typeError("_launch() takes 8 arguments (\(count) given)")
                    }
                    let core = try LoopObject.core(loop)
                    if core.isClosed { throw runtimeError("Event loop is closed") }
                    let state = try ModuleState.required(module)
                    var request = ProcessRequest()
                    request.path = try ProgramModule.bytes(arguments[1])
                    request.arguments = try ProgramModule.list(arguments[2], ProgramModule.bytes)
                    request.environment = try ProgramModule.list(arguments[3], ProgramModule.bytes)
                    request.directory = try ProgramModule.optional(arguments[4], ProgramModule.bytes)
                    try ProgramModule.set(arguments[5], of: &request)
                    request.mask = try ProgramModule.optional(arguments[6], ProgramModule.number)
                    let stdio = try ProgramModule.set(stdio: arguments[7], of: &request)
                    guard let helper = ProcessHelper.shared.current else { return newNone() }
                    let control: Descriptor
                    do throws(Errno) { control = try helper.launch(request, passing: stdio) } catch {
                        return try ProgramModule.failed(error, helper)
                    }
                    return try ProgramObject.make(
                        state.programType, GuardedProgram(control, of: core)
                    ).take()
                }
            }
        ]
    }

    private static func failed(_ error: Errno, _ helper: SpawnHelper) throws(PythonError) -> PyPointer {
        switch error.code {
        // The second is that of too many descriptors on their way.
        case EAGAIN, ETOOMANYREFS: throw osError(EAGAIN)
        case EPIPE, ECONNRESET:
            ProcessHelper.shared.lost(helper)
            return newNone()
        default: throw osError(error.code)
        }
    }

    private static func bytes(_ object: PyPointer?) throws(PythonError) -> [UInt8] {
        try withBuffer(object) { (memory) throws(PythonError) in Array(memory) }
    }

    private static func list<Element>(
        _ object: PyPointer?, _ element: (PyPointer?) throws(PythonError) -> Element
    ) throws(PythonError) -> [Element] {
        let iterator = try Object(PyObject_GetIter(object))
        var elements: [Element] = []
        while let next = PyIter_Next(iterator.pointer) {
            let held = Object(owning: next)
            elements.append(try element(held.pointer))
        }
        if PyErr_Occurred() != nil { throw PythonError() }
        return elements
    }

    private static func optional<Value>(
        _ object: PyPointer?, _ value: (PyPointer?) throws(PythonError) -> Value
    ) throws(PythonError) -> Value? {
        object == cpython_none() ? nil : try value(object)
    }

    private static func number(_ object: PyPointer?) throws(PythonError) -> UInt32 {
        guard let object, let number = try integer(object), let fitting = UInt32(exactly: number) else {
            throw raised(cpython_OverflowError(), "a number from 0 to \(UInt32.max) is needed")
        }
        return fitting
    }

    private static func account(_ object: PyPointer?) throws(PythonError) -> ProcessRequest.Account {
        if let object, cpython_is_bytes(object) != 0 { return .name(try bytes(object)) }
        return .number(try number(object))
    }

    private static func set(
        _ accounts: PyPointer?, of request: inout ProcessRequest
    ) throws(PythonError) {
        guard let accounts, cpython_is_tuple(accounts) != 0, PyTuple_Size(accounts) == 3 else {
            throw typeError("a user, a group and groups are needed")
        }
        request.user = try optional(PyTuple_GetItem(accounts, 0), account)
        request.group = try optional(PyTuple_GetItem(accounts, 1), account)
        request.groups = try optional(PyTuple_GetItem(accounts, 2)) { (groups) throws(PythonError) in
            try list(groups, account)
        }
    }

    /// Returns what goes along.
    private static func set(
        stdio object: PyPointer?, of request: inout ProcessRequest
    ) throws(PythonError) -> [Int32] {
        let numbers = try list(object) { (each) throws(PythonError) in
            guard let each, let number = try integer(each).flatMap({ Int32(exactly: $0) }) else {
                throw valueError("a descriptor is needed")
            }
            return number
        }
        let inherited = Array(numbers.dropFirst(3))
        guard numbers.count >= 3, inherited.allSatisfy({ $0 > 2 }) else {
            throw valueError("three descriptors are needed, and above 2 those that are inherited")
        }
        guard inherited.count <= ProcessRequest.mostInherited else {
            throw valueError("a program inherits at most \(ProcessRequest.mostInherited) descriptors")
        }
        request.inherited = inherited
        let kinds = numbers.prefix(3).map { (number: Int32) -> ProcessRequest.Stdio in
            number >= 0 ? .passed : number == -2 ? .sameAsOutput : .null
        }
        (request.input, request.output, request.error) = (kinds[0], kinds[1], kinds[2])
        return numbers.filter { $0 >= 0 }
    }
}
