import CPython

/// The arguments of a function with keywords, in the order of `parameters`; nil for one that is not given. Borrowed.
///
/// The first `positional` parameters may be given by position.
public func named(
    _ function: StaticString, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ names: PyPointer?,
    _ parameters: [String], positional: Int
) throws(PythonError) -> [PyPointer?] {
    var found: [PyPointer?] = Array(repeating: nil, count: parameters.count)
    guard count <= positional else {
        throw typeError("\(function)() takes at most \(positional) positional arguments (\(count) given)")
    }
    for index in 0..<min(count, found.count) { found[index] = arguments?[index] }
    guard let names else { return found }
    for position in 0..<max(0, PyTuple_Size(names)) {
        guard let name = PyTuple_GetItem(names, position) else { throw PythonError() }
        let text = try text(of: name)
        guard let index = parameters.firstIndex(of: text) else {
            throw typeError("\(function)() got an unexpected keyword argument '\(text)'")
        }
        guard found[index] == nil else {
            throw typeError("\(function)() got multiple values for argument '\(text)'")
        }
        found[index] = arguments?[count + position]
    }
    return found
}
