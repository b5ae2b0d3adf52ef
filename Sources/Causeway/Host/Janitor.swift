import CPython
import Python
import Streams
import Synchronization

/// The thread that does what needs an interpreter's GIL on behalf of BEAM threads, which never take it: it
/// interrupts what Python executes. It alone waits when C code keeps the GIL.
///
/// It is the interpreter's main thread: the one that has started it, and that never ends.
final class Janitor: Sendable {
    /// How long a context that must end may take for one call or callback, in nanoseconds, before that
    /// is interrupted, and interrupted again: Python code may catch the first. And how long a task that was given up may
    /// go on before its loop can tell it so.
    private static let patience: Int64 = 20_000_000

    /// How soon it looks again at a thread that is not to be interrupted just now, in nanoseconds.
    private static let respite: Int64 = 1_000_000

    /// How many times as long it may take to free what it leaves behind: mostly that is only slow.
    private static let tidying = 20

    private struct Interruption {
        let context: Context
        let activity: UInt64
        /// Also where one was raised in that call already.
        let isRepeated: Bool

        /// Whether it would still hit what it is meant for. With the GIL.
        var isDue: Bool {
            context.activity == activity
                && (isRepeated || context.raised.load(ordering: .relaxed) != activity)
        }
    }

    private struct Work {
        var interruptions: [Interruption] = []
        var diagnoses: [Diagnosis] = []
        var ending: [(context: Context, seen: UInt64, times: Int)] = []
        /// Contexts with tasks that were given up and are to be told so.
        var watched: [(context: Context, seen: UInt64, since: Int64)] = []
    }

    private let work = Mutex(Work())
    private let bell = FutexWord(0)
    private let isAsked = Atomic<Bool>(false)

    /// Interrupts what a context executes, if it still executes that. Once, unless it is to be repeated.
    func interrupt(_ context: Context, activity: UInt64, isRepeated: Bool = false) {
        let interruption = Interruption(context: context, activity: activity, isRepeated: isRepeated)
        work.withLock { $0.interruptions.append(interruption) }
        ring()
    }

    /// Interrupts whatever a context executes, again and again until its thread has ended.
    func interruptUntilEnded(_ context: Context) {
        work.withLock { $0.ending.append((context, 0, 0)) }
        ring()
    }

    /// Has a context's tasks that were given up interrupted, where one does not let its loop go on in time.
    func watchTasks(of context: Context) {
        let isNew = work.withLock { work in
            guard !work.watched.contains(where: { $0.context === context }) else { return false }
            work.watched.append((context, 0, 0))
            return true
        }
        if isNew { ring() }
    }

    /// Answers a question, as soon as the GIL can be had.
    func answer(_ diagnosis: Diagnosis) {
        work.withLock { $0.diagnoses.append(diagnosis) }
        ring()
    }

    /// Has it look for work.
    func ring() {
        if bell.exchange(1) == 0 { bell.wake() }
    }

    /// Has it take the GIL once and release it: whoever has it in this interpreter lets others have it.
    func askForGIL() {
        isAsked.store(true, ordering: .sequentiallyConsistent)
        ring()
    }

    /// The thread's life.
    func run(_ state: ModuleState, threadState: ThreadState) -> Never {
        while true {
            let pause = doWork(threadState, state)
            answerQuestions(threadState, state)
            if !state.leftovers.isEmpty, state.contexts.count == 0 {
                threadState.withGIL { state.leftovers.giveBack(state.namespaces) }
            }
            if isAsked.exchange(false, ordering: .sequentiallyConsistent) { threadState.withGIL {} }
            bell.wait(while: 0, nanoseconds: pause)
        }
    }

    private func answerQuestions(_ threadState: ThreadState, _ state: ModuleState) {
        let asked = work.withLock { work in
            defer { work.diagnoses = [] }
            return work.diagnoses
        }
        guard !asked.isEmpty else { return }
        threadState.withGIL { for diagnosis in asked { diagnosis.answer(state) } }
    }

    /// Returns after how many nanoseconds it must look again; nil: when it is rung for.
    private func doWork(_ threadState: ThreadState, _ state: ModuleState) -> Int64? {
        bell.store(0)
        let (asked, repeated, stuck, mustRepeat) = work.withLock { work in
            defer { work.interruptions = [] }
            let (repeated, stuck) = (dueToEnd(&work), loopsHeldUp(&work))
            return (work.interruptions, repeated, stuck, !work.ending.isEmpty || !work.watched.isEmpty)
        }
        var postponed: [Interruption] = []
        if !asked.isEmpty || !repeated.isEmpty || !stuck.isEmpty {
            threadState.withGIL {
                postponed = asked.filter { !raise(state.interruption, for: $0) }
                for work in repeated { _ = raise(state.interruption, for: work) }
                for work in stuck where work.isDue && work.context.callsCancelledTask(state) {
                    _ = raise(state.interruption, for: work)
                }
            }
        }
        if postponed.isEmpty { return mustRepeat ? Janitor.patience : nil }
        work.withLock { $0.interruptions += postponed }
        return Janitor.respite
    }

    /// What contexts that must end execute for too long.
    private func dueToEnd(_ work: inout Work) -> [Interruption] {
        var due: [Interruption] = []
        work.ending.removeAll { $0.context.hasEnded }
        for index in work.ending.indices {
            let context = work.ending[index].context
            let activity = context.activity
            let isSame = activity == work.ending[index].seen
            work.ending[index].times = isSame ? work.ending[index].times + 1 : 0
            let isTidying = context.isTidying.load(ordering: .relaxed)
            if activity != 0, work.ending[index].times > (isTidying ? Janitor.tidying : 0) {
                due.append(Interruption(context: context, activity: activity, isRepeated: true))
            }
            work.ending[index].seen = activity
        }
        return due
    }

    /// What loops of tasks call for too long while they are to tell tasks that these were given up.
    private func loopsHeldUp(_ work: inout Work) -> [Interruption] {
        var due: [Interruption] = []
        work.watched.removeAll { $0.context.cancelledTasks.isEmpty || $0.context.hasEnded }
        let now = monotonicNanoseconds()
        for index in work.watched.indices {
            let (context, seen, since) = work.watched[index]
            let activity = context.activity
            if activity != seen || activity == 0 {
                work.watched[index] = (context, activity, now)
            } else if now - since >= Janitor.patience {
                due.append(Interruption(context: context, activity: activity, isRepeated: false))
            }
        }
        return due
    }

    /// With the GIL. False where it is to be tried again.
    ///
    /// Python's locks of modules are Python code: an exception between the taking of one and the block that gives it
    /// back would leave it taken for ever. A thread that waits for such a lock could not be interrupted anyway.
    private func raise(_ interruption: PyPointer, for work: Interruption) -> Bool {
        guard work.isDue else { return true }
        let context = work.context
        let state = context.threadState.load(ordering: .sequentiallyConsistent)
        if ThreadState.isImporting(state) { return false }
        context.isInterrupted.store(true, ordering: .relaxed)
        if !work.isRepeated { context.raised.store(work.activity, ordering: .relaxed) }
        ThreadState.interrupt(
            state, identifier: context.threadIdentifier.load(ordering: .relaxed), with: interruption)
        context.sleep.set(bits: Sleep.interrupted)
        context.sleep.wake()
        // It may wait for an Erlang function.
        context.doorbell.ring()
        return true
    }
}
