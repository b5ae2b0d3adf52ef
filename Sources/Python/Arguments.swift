import CPython

/// The arguments of a function that takes some by name, read one parameter after the other. Borrowed, and without a
/// copy: small calls are made by the million.
public struct Arguments {
    private let function: StaticString
    private let arguments: UnsafePointer<PyPointer?>?
    private let count: Int
    private let names: PyPointer?
    private var position = 0
    private var found = 0

    /// What a `NamedFunction` is given.
    public init(
        of function: StaticString, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ names: PyPointer?
    ) {
        self.function = function
        self.arguments = arguments
        self.count = count
        self.names = names
    }

    /// The next parameter that may be given by position; nil where it is not given. Throws TypeError where
    /// it is given twice, by position and by name.
    public mutating func next(_ name: StaticString) throws(PythonError) -> PyPointer? {
        guard position < count else { return named(name) }
        defer { position += 1 }
        guard named(name) == nil else {
            throw typeError("\(function)() got multiple values for argument '\(name)'")
        }
        return arguments?[position]
    }

    /// A parameter that is given by name only; nil where it is not given.
    public mutating func named(_ name: StaticString) -> PyPointer? {
        guard let names else { return nil }
        for index in 0..<max(0, PyTuple_Size(names)) {
            if PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, index), cString(name)) == 0 {
                found += 1
                return arguments?[count + index]
            }
        }
        return nil
    }

    /// All parameters are read: throws where there are more arguments.
    public func end() throws(PythonError) {
        guard position == count else {
            throw typeError("\(function)() takes at most \(position) positional arguments (\(count) given)")
        }
        guard let names, found < PyTuple_Size(names) else { return }
        throw typeError("\(function)() got an unexpected keyword argument: \(describe(names))")
    }
}

/// An integer; nil for one that is too large for the machine's. Raises TypeError for what is none. The
/// corresponding C function is `PyLong_AsLongAndOverflow`.
public func integer(_ object: PyPointer) throws(PythonError) -> Int? {
    var overflow: Int32 = 0
    let number = PyLong_AsLongAndOverflow(object, &overflow)
    if overflow != 0 { return nil }
    if number == -1, PyErr_Occurred() != nil { throw PythonError() }
    return number
}
