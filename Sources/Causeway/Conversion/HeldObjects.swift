import CPython
import Python

/// The Python objects of one interpreter that Erlang terms refer to: what `py:memory_stats/0` tells.
/// With the GIL.
final class HeldObjects: @unchecked Sendable {
    /// How many references there are to each.
    private var counts: [PyPointer: Int] = [:]
    /// How many references there are.
    private(set) var count = 0

    /// A term refers to the object.
    func add(_ pointer: PyPointer) {
        counts[pointer, default: 0] += 1
        count += 1
    }

    /// A term that referred to it is gone. The caller gives the reference back.
    func remove(_ pointer: PyPointer) {
        guard let known = counts[pointer] else { return }
        count -= 1
        counts[pointer] = known > 1 ? known - 1 : nil
        // The room of a rush is given back.
        if counts.isEmpty { counts = [:] }
    }

    /// A Python list of the objects, each once.
    func objects() throws(PythonError) -> Object {
        let size = counts.count
        let list = try Object(PyList_New(size))
        // Making a list may collect garbage, which runs Python code and lets objects come and go: they are
        // looked at after that. What follows runs none.
        var pointers = counts.keys.makeIterator()
        for index in 0..<size {
            let pointer = pointers.next() ?? cpython_none()
            Py_IncRef(pointer)
            PyList_SetItem(list.pointer, index, pointer)
        }
        return list
    }
}
