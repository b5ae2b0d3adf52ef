import CPython
import Python

/// What a protocol's method says is to be done next.
enum Action {
    case `continue`, writePending, readPending, close, asyncPending

    /// Reads a return value: the interned strings by identity first, others by what they say.
    ///
    /// Anything else is an error of the protocol: a `ValueError` that names what is accepted.
    init(_ result: borrowing Object, of method: StaticString, _ names: Names, accepting accepted: [Action])
        throws(PythonError)
    {
        guard let action = Action.named(result.pointer, names), accepted.contains(action) else {
            throw Action.wrong(result.pointer, method, accepted)
        }
        self = action
    }

    @inline(__always)
    private static func named(_ object: PyPointer, _ names: Names) -> Action? {
        if object == names.writePending { return .writePending }
        if object == names.continue { return .continue }
        if object == names.readPending { return .readPending }
        if object == names.close { return .close }
        if object == names.asyncPending { return .asyncPending }
        return equal(object, names)
    }

    private static func equal(_ object: PyPointer, _ names: Names) -> Action? {
        guard cpython_is_unicode(object) != 0 else { return nil }
        let all: [(PyPointer, Action)] = [
            (names.writePending, .writePending), (names.continue, .continue),
            (names.readPending, .readPending),
            (names.close, .close), (names.asyncPending, .asyncPending),
        ]
        return all.first { PyUnicode_Compare(object, $0.0) == 0 }?.1
    }

    private static func wrong(_ object: PyPointer, _ method: StaticString, _ accepted: [Action])
        -> PythonError
    {
        let shown = PyObject_Repr(object)
        if shown == nil { PyErr_Clear() }
        defer { Py_DecRef(shown) }
        let got = shown.map { describe($0) } ?? typeName(of: object)
        let choices = accepted.map { "'\($0.spelling)'" }.joined(separator: ", ")
        return valueError("\(method)() returned \(got); it must return one of \(choices)")
    }

    /// The string that Python code compares it with.
    func object(_ names: Names) -> Object {
        switch self {
        case .continue: Object(retaining: names.continue)
        case .writePending: Object(retaining: names.writePending)
        case .readPending: Object(retaining: names.readPending)
        case .close: Object(retaining: names.close)
        case .asyncPending: Object(retaining: names.asyncPending)
        }
    }

    private var spelling: String {
        switch self {
        case .continue: "continue"
        case .writePending: "write_pending"
        case .readPending: "read_pending"
        case .close: "close"
        case .asyncPending: "async_pending"
        }
    }

    /// What `data_received` may return.
    static let afterData: [Action] = [.continue, .writePending, .asyncPending, .close]
    /// What `write_ready` may return.
    static let afterWrite: [Action] = [.continue, .readPending, .writePending, .asyncPending, .close]
}
