import Beam
import CErlNif
import CPython
import Python
import Streams

/// Takes items from a Python iterator and sends each to its consumer as soon as it is there.
struct StreamRunner {
    /// After how long, in nanoseconds, other calls of the context have their turn.
    private static let turn: Int64 = 1_000_000

    let call: Call
    let state: ModuleState

    /// Sends at most `count` items as `{py_stream, Reference, {data, Item}}`. Returns how many it has sent, and
    /// whether there may be more.
    ///
    /// The count is what the consumer has room for: the iterator is not asked for more.
    func run(iterator: Term, count: Term, owner: Term, reference: Term) throws(PythonError) -> Object {
        let env = call.environment.pointer
        var consumer = ErlNifPid()
        guard let source = resourceTypes.object.object(env, iterator), let wanted = integer(env, count),
            wanted > 0, enif_get_local_pid(env, owner, &consumer) != 0
        else { throw valueError("a stream needs an iterator, a count and a process of this node") }
        guard PyIter_Check(source.pointer) != 0 else {
            // An asynchronous one: a task does the same.
            let emitter = StreamEmitter(call, consumer, reference, state)
            let emit = try StreamEmitterObject.make(state.streamEmitterType, emitter)
            let number = try Object(PyLong_FromLong(wanted))
            return try state.callTasks("pull", [source.pointer, number.pointer, emit.pointer])
        }
        let message = Environment()
        let end = monotonicNanoseconds() + StreamRunner.turn
        var sent = 0
        while sent < wanted, monotonicNanoseconds() < end {
            guard let item = PyIter_Next(source.pointer) else {
                if PyErr_Occurred() != nil { throw PythonError() }
                return try result(sent, mayHaveMore: false)
            }
            let held = Object(owning: item)
            var encoder = Encoder(env: message.pointer, state: state)
            let data = makeTuple(message.pointer, atoms.data, try encoder.term(held.pointer))
            let event = makeTuple(message.pointer, atoms.pyStream, message.copy(reference), data)
            guard call.deliver({ send(to: consumer, message, event) }) else { break }
            sent += 1
        }
        return try result(sent, mayHaveMore: true)
    }

    private func result(_ sent: Int, mayHaveMore: Bool) throws(PythonError) -> Object {
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, try Object(PyLong_FromLong(sent)).take())
        PyTuple_SetItem(pair.pointer, 1, newBool(mayHaveMore))
        return pair
    }
}
