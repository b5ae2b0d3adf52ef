// The thread sanitizer sees only what was compiled for it. Of the standard library's `Mutex` that is the
// fast path, which is inlined; the path of a thread that finds it locked is in libswiftSynchronization, and
// what that orders is reported as a race, in ten lines without any of our code:
//
//     let number = Mutex(0)  // and on four threads: for _ in 0..<20_000 { number.withLock { $0 += 1 } }
//
// Hence, with `-Xswiftc -DTHREAD_SANITIZER` beside `--sanitize=thread`, this takes that path's place: the
// linker prefers it. It orders exactly what a lock orders, so that every real race is still found.
#if THREAD_SANITIZER
    import Glibc
    import Synchronization

    /// Laid out as the standard library's `_MutexHandle`.
    struct SanitizedMutexHandle: ~Copyable {
        /// Zero, or the thread that holds the lock.
        let storage: Atomic<UInt32>

        /// What the inlined half calls when the lock is taken. It never marks the lock as waited for, so
        /// that unlocking has only a fast path.
        @_silgen_name("$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF")
        @inline(never)
        borrowing func lockSlow(_ thread: UInt32) {
            repeat {
                sched_yield()
            } while !storage.compareExchange(
                expected: 0, desired: thread, successOrdering: .acquiring, failureOrdering: .relaxed
            ).exchanged
        }
    }
#endif
