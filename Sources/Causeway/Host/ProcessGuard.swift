import CPython
import Glibc
import Python

/// Refuses what would harm the node: a copy of the process without its threads, or another program in its
/// place.
///
/// It is a native audit hook, for all interpreters of the process. Python's own are called for every event, and
/// cost `copy.deepcopy`, which asks for many an `id()`, as much time again.
enum ProcessGuard {
    /// Before Python is initialised.
    static func install() {
        // Only the three events are looked at further: everything else returns after a comparison or two.
        cpython_add_audit_hook { event, _, _ in
            guard let event, strncmp(event, "os.", 3) == 0 else { return 0 }
            if strcmp(event, "os.fork") == 0 || strcmp(event, "os.forkpty") == 0 {
                return ProcessGuard.refuse(
                    "fork() is refused inside the BEAM: the new process would have none of its threads, but its "
                        + "locks and descriptors. Use subprocess, or multiprocessing.get_context('spawn')")
            }
            if strcmp(event, "os.exec") == 0 {
                return ProcessGuard.refuse(
                    "exec is refused inside the BEAM: it would end the Erlang node. Use subprocess")
            }
            return 0
        }
    }

    private static func refuse(_ text: String) -> Int32 {
        _ = runtimeError(text)
        return -1
    }
}
