import CPlatform
import Glibc
import Streams

/// A process as it was found: by its number, which another process may have by now, and its parent's.
struct Relative: Hashable {
    let pid: pid_t
    let parent: pid_t
}

/// What /proc tells of processes and their children.
enum ProcessTree {
    /// So many are looked at at most in one round; the others have their turn in the next.
    private static let most = 100_000
    /// How often a tree that still grows is looked at again before it is killed as far as it is known.
    private static let mostRounds = 100

    /// The children of a process, of all its threads.
    static func children(of pid: pid_t) -> [pid_t] {
        var found: [pid_t] = []
        guard hasLists else { return parents().filter { $0.parent == pid }.map(\.pid) }
        for thread in numbers(in: "/proc/\(pid)/task") {
            let list = contents(of: "/proc/\(pid)/task/\(thread)/children")
            found += list.split(separator: UInt8(ascii: " ")).compactMap(number)
        }
        return found
    }

    /// All that come from a process, parents before their children.
    static func descendants(of root: pid_t) -> [Relative] {
        var all: [Relative] = []
        var parents = [root]
        var seen: Set<pid_t> = [root]
        while !parents.isEmpty, all.count < most {
            var next: [pid_t] = []
            for parent in parents {
                // The number may come twice when a parent ends meanwhile.
                for child in children(of: parent) where seen.insert(child).inserted {
                    all.append(Relative(pid: child, parent: parent))
                    next.append(child)
                }
            }
            parents = next
        }
        return all
    }

    /// Sends a signal, unless the number belongs to somebody else by now.
    static func signal(_ relative: Relative, _ number: Int32) {
        // Our own children keep their number until we have waited for them.
        if relative.parent == getpid() {
            _ = kill(relative.pid, number)
            return
        }
        let process = cplatform_open_process(relative.pid)
        guard process >= 0 else {
            // A kernel before 5.3 has no such descriptors.
            if Errno.last().code == ENOSYS, isRelated(relative) { _ = kill(relative.pid, number) }
            return
        }
        let descriptor = Descriptor(owning: process)
        // From here on the descriptor means one process: is it the one that was found?
        if isRelated(relative) { _ = cplatform_signal_process(descriptor.number, number) }
    }

    /// A process's parent may have ended since it was found: then it is its grandparent's, or ours.
    private static func isRelated(_ relative: Relative) -> Bool {
        guard let parent = parent(of: relative.pid) else { return false }
        if parent == relative.parent || parent == getpid() { return true }
        // A subreaper between us and it has adopted it: that is one of ours where we are above it.
        var ancestor = parent
        for _ in 0..<mostRounds {
            guard ancestor > 1, let next = ProcessTree.parent(of: ancestor) else { return false }
            if next == getpid() { return true }
            ancestor = next
        }
        return false
    }

    /// Stops processes and all that come from them, level by level, until no new ones are found; then kills them.
    /// Those that are stopped neither make new ones nor wait for old ones.
    static func freezeAndKill(_ roots: () -> [Relative]) {
        var stopped: Set<Relative> = []
        var isGrowing = true
        var rounds = 0
        while isGrowing, rounds < mostRounds {
            isGrowing = false
            rounds += 1
            for root in roots() {
                for relative in [root] + descendants(of: root.pid) where stopped.insert(relative).inserted {
                    isGrowing = true
                    signal(relative, SIGSTOP)
                }
            }
        }
        for relative in stopped { signal(relative, SIGKILL) }
    }

    // MARK: Reading /proc

    /// Whether this kernel lists children; where not, every process is asked for its parent.
    private static let hasLists = access("/proc/thread-self/children", R_OK) == 0

    private static func parents() -> [Relative] {
        numbers(in: "/proc").compactMap { pid in parent(of: pid).map { Relative(pid: pid, parent: $0) } }
    }

    /// The parent of a process; nil where there is no such process.
    private static func parent(of pid: pid_t) -> pid_t? {
        let text = contents(of: "/proc/\(pid)/stat")
        // `pid (name) S parent …`, and the name may hold anything.
        guard let end = text.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = text[end...].split(separator: UInt8(ascii: " "), maxSplits: 3)
        return fields.count > 2 ? number(fields[2]) : nil
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> pid_t? {
        pid_t(String(decoding: digits, as: UTF8.self))
    }

    private static func numbers(in directory: String) -> [pid_t] {
        entries(in: directory).compactMap { pid_t($0) }
    }
}

/// The names in a directory; none where it cannot be read.
func entries(in directory: String) -> [String] {
    guard let open = opendir(directory) else { return [] }
    defer { closedir(open) }
    var names: [String] = []
    while let entry = readdir(open) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// All that is in a file; nothing where it cannot be read.
func contents(of path: String) -> [UInt8] {
    let number = open(path, O_RDONLY | O_CLOEXEC)
    guard number >= 0 else { return [] }
    let file = Descriptor(owning: number)
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 16384)
    // What is in /proc has no size.
    while true {
        let count = (try? retryingOnInterrupt { read(file.number, &part, part.count) }) ?? 0
        if count <= 0 { return bytes }
        bytes += part[..<count]
    }
}
