import CPython
import Python
import Streams

/// A loop that runs on a context's thread: while it waits, the context serves.
extension ContextThread {
    /// Waits for a loop, for at most so many nanoseconds, and serves what comes for the context meanwhile. With the
    /// GIL, between two turns of the loop.
    ///
    /// Throws where the call that runs the loop is interrupted, or the context stops.
    func wait(in loop: LoopCore, _ nanoseconds: Int64) throws(PythonError) {
        let outer = suspend()
        defer { resume(outer) }
        if let reactorPoller = reactor.poller?.descriptor { loop.watchInner(reactorPoller) }
        var nanoseconds = nanoseconds
        if let background, background.core !== loop, background.mustBePolled {
            if let poller = background.core.poller?.descriptor { loop.watchInner(poller) }
            nanoseconds = background.shortened(nanoseconds)
        }
        loop.takeOff()
        loop.isPolling = true
        leave()
        let bell = context.doorbell
        var isIdle = nanoseconds != 0
        if isIdle {
            bell.willPoll()
            // Announced first, looked at afterwards: who pushed before saw us running and did not ring.
            isIdle = !hasWork && !isInterrupted && !loop.isAwaited
        }
        loop.poll(isIdle ? nanoseconds : 0)
        if reactor.isServing {
            reactor.poll(milliseconds: 0)
            reactor.readReady()
        }
        if let background, background.core !== loop, background.mustBePolled { background.core.poll(0) }
        enter()
        loop.isPolling = false
        try loop.land()
        if isInterrupted { throw interruption() }
        if hasWork { serveOnTop() }
        if isInterrupted { throw interruption() }
    }
}
