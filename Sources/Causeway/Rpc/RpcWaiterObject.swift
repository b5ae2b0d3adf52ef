import CPython
import Python
import Streams

/// The struct of `_causeway._RpcWaiter`: what an asyncio task waits for in a streaming call.
struct RpcWaiterObject {
    var head: PyObject
    private var half: Unmanaged<StreamHalf>?
    private var waiter: Unmanaged<Waiter>?
    /// Nil while it waits for the reply.
    private var queue: Unmanaged<ByteQueue>?
    private var goal = RpcOperation.Goal.receive

    static func make(
        _ type: PyType, _ half: StreamHalf, _ goal: RpcOperation.Goal, _ waiter: Waiter, _ queue: ByteQueue?
    ) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: RpcWaiterObject.self)
        fields.pointee.half = .passRetained(half)
        fields.pointee.waiter = .passRetained(waiter)
        fields.pointee.queue = queue.map { .passRetained($0) }
        fields.pointee.goal = goal
        return object
    }

    static func set(_ queue: ByteQueue, of object: PyPointer) {
        object.cast(to: RpcWaiterObject.self).pointee.queue = .passRetained(queue)
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._RpcWaiter", RpcWaiterObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    RpcWaiterObject.cancel(me)
                    let fields = me.cast(to: RpcWaiterObject.self).pointee
                    fields.half?.release()
                    fields.waiter?.release()
                    fields.queue?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        property("settled", "Whether the wait is over.") { me, _ in
                            newBool(RpcWaiterObject.parts(me)?.waiter.isSettled ?? true)
                        }, PyGetSetDef(),
                    ]),
            ])
    }

    private static func parts(_ me: PyPointer?) -> (
        half: StreamHalf, waiter: Waiter, queue: ByteQueue?, goal: RpcOperation.Goal
    )? {
        guard let fields = me?.cast(to: RpcWaiterObject.self).pointee,
            let half = fields.half?.takeUnretainedValue(), let waiter = fields.waiter?.takeUnretainedValue()
        else { return nil }
        return (half, waiter, fields.queue?.takeUnretainedValue(), fields.goal)
    }

    private static func cancel(_ me: PyPointer) {
        guard let (half, waiter, queue, goal) = parts(me) else { return }
        if goal == .reply { half.endWaitForReply(waiter) } else { queue?.cancel(waiter) }
    }

    private static func finish(_ me: PyPointer) throws(PythonError) -> PyPointer {
        guard let (half, waiter, queue, goal) = parts(me) else { throw PythonError() }
        let operation = RpcOperation(half: half, flow: nil, state: try ModuleState.of(instance: me))
        guard let queue else {
            half.endWaitForReply(waiter)
            return try operation.knownReply()?.take() ?? newNone()
        }
        let outcome = queue.finish(waiter)
        guard goal == .receive else {
            guard case .sent = outcome else { return newBool(false) }
            half.countSent()
            return newBool(true)
        }
        switch operation.received(outcome) {
        case .chunk(let chunk): return try RpcHalfObject.pair(chunk, operation).take()
        case .failed(let failure): throw try operation.raise(failure)
        case .end: return newNone()
        case .empty: throw runtimeError("nothing has happened yet")
        }
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "finish",
                "finish($self, /)\n--\n\nEnd the wait: (chunk, weight) or None at the end; whether it was sent; the reply."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    guard let me else { throw PythonError() }
                    return try RpcWaiterObject.finish(me)
                }
            },
            method(
                "cancel",
                "cancel($self, /)\n--\n\nEnd the wait: a chunk that has come is the next again, one to send is not sent."
            ) { me, _, _ in
                if let me { RpcWaiterObject.cancel(me) }
                return newNone()
            },
            PyMethodDef(),
        ]
    }
}
