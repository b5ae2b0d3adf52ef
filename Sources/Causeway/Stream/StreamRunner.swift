import Beam
import CErlNif
import CPython
import Python
import Streams

/// Takes items from a Python iterator and gives each to the outbox of its stream as soon as it is there.
struct StreamRunner {
    /// After how long, in nanoseconds, other calls of the context have their turn.
    private static let turn: Int64 = 1_000_000

    let call: Call
    let state: ModuleState

    /// Takes at most `count` items. Returns how many it has taken, and whether there may be more.
    ///
    /// The count is what the consumer has room for: the iterator is not asked for more.
    func run(iterator: Term, count: Term, outbox: Term) throws(PythonError) -> Object {
        let env = call.environment.pointer
        guard let source = resourceTypes.object.object(env, iterator), let wanted = integer(env, count),
            wanted > 0, let outbox = resourceTypes.streamOutbox.object(env, outbox)
        else { throw valueError("a stream needs an iterator, a count and an outbox") }
        let emitter = StreamEmitter(call: call, outbox: outbox, state: state)
        guard PyIter_Check(source.pointer) != 0 else {
            // An asynchronous one: a task does the same.
            let emit = try StreamEmitterObject.make(state.streamEmitterType, emitter)
            let number = try Object(PyLong_FromLong(wanted))
            return try state.callTasks("pull", [source.pointer, number.pointer, emit.pointer])
        }
        let end = monotonicNanoseconds() + StreamRunner.turn
        var taken = 0
        while taken < wanted, monotonicNanoseconds() < end {
            guard let item = PyIter_Next(source.pointer) else {
                if PyErr_Occurred() != nil { throw PythonError() }
                return try result(taken, mayHaveMore: false)
            }
            let held = Object(owning: item)
            guard try emitter.emit(held.pointer) else { break }
            taken += 1
        }
        return try result(taken, mayHaveMore: true)
    }

    private func result(_ taken: Int, mayHaveMore: Bool) throws(PythonError) -> Object {
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, try Object(PyLong_FromLong(taken)).take())
        PyTuple_SetItem(pair.pointer, 1, newBool(mayHaveMore))
        return pair
    }
}
