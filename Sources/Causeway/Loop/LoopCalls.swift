import CPython
import Python

/// What a loop calls on behalf of no call: each with a number by which the janitor knows what it would interrupt.
extension LoopCore {
    /// Something is called in a context by a loop that serves on its own: `callEnded` is to be given what this returns,
    /// the number of the turn.
    @inline(__always)
    func callBegins(in context: PyPointer?) -> UInt64? {
        guard isOnItsOwn, let context, let host = thread?.context, host.callee == nil else { return nil }
        let outer = host.activity
        host.activity = ReactorInbox.nextCallback()
        host.callee = Py_NewRef(context)
        return outer
    }

    /// What was to interrupt it is not to hit what comes next. An exception that it has raised stays.
    @inline(__always)
    func callEnded(_ outer: UInt64?) {
        guard let outer, let host = thread?.context else { return }
        let callee = host.callee
        host.callee = nil
        host.activity = outer
        if host.mustEndInterruption {
            let exception = Exception.take()
            host.endInterruption()
            exception?.restore()
        }
        Py_DecRef(callee)
    }
}
