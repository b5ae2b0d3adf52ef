import CPlatform
import Glibc
import Streams
import Testing

/// What a script does that waits for signals.
private let idle = "echo up; while :; do sleep 0.01; done"

/// Scripts that print the numbers of all their processes, one a line, and how many they are.
private let trees: [(name: String, script: String, count: Int)] = [
    ("one", "echo $$; exec sleep 1000", 1),
    ("children", "echo $$; sleep 1000 & echo $!; sleep 1000 & echo $!; wait", 3),
    (
        "deaf",
        "trap '' TERM; echo $$; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' & wait", 2
    ),
    ("session", "echo $$; setsid sh -c 'echo $$; sleep 1000' & wait", 2),
    (
        "daemon",
        "echo $$; (setsid sh -c '(sh -c \"echo \\$PPID\"; exec sleep 1000) & :' &); sleep 1000", 2
    ),
    ("stopped", "echo $$; sleep 1000 & echo $!; kill -STOP $!; wait", 2),
]

@Suite("causeway-spawn ends what it has started")
struct EndTests {
    private let helper: Helper

    init() throws { helper = try Helper() }

    private func pids(_ running: Running, _ count: Int) throws -> [pid_t] {
        try running.lines(count).compactMap { pid_t($0) }
    }

    private func request(_ script: String, delay: UInt32 = 50) -> ProcessRequest {
        var request = ProcessRequest(script: script)
        request.delayToKill = delay
        return request
    }

    @Test("a tree, when asked", arguments: trees.map(\.name))
    func ends(name: String) throws {
        let tree = try #require(trees.first { $0.name == name })
        let running = try Running(request(tree.script), by: helper)
        _ = try running.started()
        let pids = try pids(running, tree.count)
        #expect(pids.count == tree.count)
        try running.send(.end)
        _ = try running.status()
        for pid in pids { #expect(!isAlive(pid)) }
    }

    @Test("a tree, when the node is gone", arguments: trees.map(\.name))
    func disconnected(name: String) throws {
        let tree = try #require(trees.first { $0.name == name })
        let running = try Running(request(tree.script), by: helper)
        _ = try running.started()
        let pids = try pids(running, tree.count)
        running.disconnect()
        expectGone(pids)
    }

    @Test("what is left when the program ends by itself, once the node says so")
    func leftovers() throws {
        let running = try Running(request("sleep 1000 & echo $!; exit 3"), by: helper)
        _ = try running.started()
        let pids = try pids(running, 1)
        #expect(try running.event() == .exited(status: 3 << 8, isAlone: false))
        #expect(pids.allSatisfy(isAlive))
        try running.send(.end)
        #expect(try running.event() == .gone)
        #expect(!pids.contains(where: isAlive))
    }

    @Test("the end of an output is seen when all who could write have closed it, though the program runs")
    func outputEnds() throws {
        let running = try Running(request("echo up; exec >&- 2>&-; read x"), by: helper)
        let pid = try running.started()
        running.readAll()
        #expect(running.output == "up\n")
        #expect(isAlive(pid))
        running.closeInput()
        #expect(try running.status() == 1 << 8)
    }

    @Test("processes that fork for ever")
    func forks() throws {
        // Each forks another one and ends, so that the tree is another at any time.
        let script =
            "echo $$; f() { (f) & }; f; for i in 1 2 3; do (while :; do (:) & (:); done) & done; wait"
        let running = try Running(request(script), by: helper)
        let pid = try running.started()
        _ = try pids(running, 1)
        let guardian = try #require(parent(of: pid))
        try running.send(.end)
        _ = try running.status()
        expectGone([pid, guardian])
    }

    @Test("who obeys SIGTERM has its own time for it, and no more than the delay")
    func delay() throws {
        let obedient = try Running(request("trap 'exit 7' TERM; \(idle)", delay: 20_000), by: helper)
        _ = try obedient.started()
        _ = try obedient.lines(1)
        try obedient.send(.end)
        #expect(try obedient.status() == 7 << 8)
        let deaf = try Running(request("trap '' TERM; \(idle)", delay: 100), by: helper)
        _ = try deaf.started()
        _ = try deaf.lines(1)
        let before = monotonicNanoseconds()
        try deaf.send(.end)
        #expect(try deaf.status() == SIGKILL)
        #expect(monotonicNanoseconds() - before >= 100_000_000)
    }

    @Test("no delay is no SIGTERM")
    func noDelay() throws {
        let running = try Running(request("trap 'exit 7' TERM; \(idle)", delay: 0), by: helper)
        _ = try running.started()
        _ = try running.lines(1)
        try running.send(.end)
        #expect(try running.status() == SIGKILL)
    }

    @Test("signals to the program, its group and all of its tree")
    func signals() throws {
        func script(_ name: String) -> String { "trap 'echo \(name)' USR1; \(idle)" }
        let quoted = ["two", "three"].map { script($0).split(separator: "'").joined(separator: "\"") }
        let running = try Running(
            request("sh -c '\(quoted[0])' & setsid sh -c '\(quoted[1])' & \(script("one"))"), by: helper)
        _ = try running.started()
        _ = try running.lines(3)
        try running.send(.signal(SIGUSR1, to: .program))
        #expect(try running.lines(4)[3] == "one")
        try running.send(.signal(SIGUSR1, to: .group))
        #expect(try Set(running.lines(6)[4...]) == ["one", "two"])
        running.disconnect()
    }

    @Test("a guardian that is killed takes its tree along, and no other")
    func guardianKilled() throws {
        let other = try Running(ProcessRequest("/bin/cat"), by: helper)
        _ = try other.started()
        let running = try Running(request("echo $$; setsid sleep 1000 & echo $!; wait"), by: helper)
        let pid = try running.started()
        let pids = try pids(running, 2)
        let guardian = try #require(parent(of: pid))
        #expect(kill(guardian, SIGKILL) == 0)
        #expect(try running.event() == nil)
        expectGone(pids + [guardian])
        other.write("still here")
        other.closeInput()
        other.readAll()
        #expect(other.output == "still here")
        #expect(try other.event() == .exited(status: 0, isAlone: true))
    }

    @Test("a guardian that is asked to end does it in order")
    func guardianAsked() throws {
        let running = try Running(request("trap 'exit 7' TERM; \(idle)", delay: 20_000), by: helper)
        let pid = try running.started()
        _ = try running.lines(1)
        let guardian = try #require(parent(of: pid))
        #expect(kill(guardian, SIGTERM) == 0)
        #expect(try running.status() == 7 << 8)
    }

    @Test("the helper ends with the node, after all that it has started")
    func helperEnds() throws {
        let running = try Running(request("trap '' TERM; echo $$; \(idle)"), by: helper)
        _ = try running.started()
        let pids = try pids(running, 1)
        #expect(kill(helper.pid, SIGTERM) == 0)
        #expect(isAlive(helper.pid))
        running.disconnect()
        #expect(helper.end() == 0)
        #expect(!pids.contains(where: isAlive))
    }

    @Test("no zombie stays")
    func zombies() throws {
        for _ in 0..<20 { #expect(try Running(ProcessRequest("/bin/true"), by: helper).exited() == 0) }
        let path = "/proc/\(helper.pid)/task/\(helper.pid)/children"
        let limit = monotonicNanoseconds() + 10_000_000_000
        while monotonicNanoseconds() < limit, !contents(path).isEmpty { sched_yield() }
        #expect(contents(path) == "")
    }

    private func contents(_ path: String) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        return String(decoding: bytes[..<max(0, read(file, &bytes, bytes.count))], as: UTF8.self)
    }
}

/// Where control groups are, if this process may make some.
private enum Hierarchy {
    /// Of version 2.
    static let unified = mount { $0.contains(" - cgroup2 ") }
    /// Of version 1, with the controller pids.
    static let pids = mount { $0.contains(" - cgroup ") && $0.hasSuffix("pids") }

    static func mount(_ isIt: (Substring) -> Bool) -> String? {
        let file = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let text = String(decoding: bytes[..<max(0, read(file, &bytes, bytes.count))], as: UTF8.self)
        guard let line = text.split(separator: "\n").first(where: isIt) else { return nil }
        let path = String(line.split(separator: " ")[4])
        return access(path, W_OK) == 0 ? path : nil
    }
}

@Suite("Control groups")
struct ControlGroupTests {
    private let helper: Helper

    init() throws { helper = try Helper() }

    private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    @Test(
        "version 2: the program is in it, what is left in it is killed, and it is removed",
        .enabled(if: Hierarchy.unified != nil))
    func unified() throws {
        let root = try #require(Hierarchy.unified)
        let name = "causeway-test-\(getpid())/two"
        defer { rmdir(root + "/causeway-test-\(getpid())") }
        var request = ProcessRequest(script: "cat /proc/self/cgroup; setsid sleep 1000 & echo $!")
        request.delayToKill = 0
        request.controlGroup = .init(isUnified: true, path: Array(name.utf8), controllers: [], settings: [])
        let running = try Running(request, by: helper)
        _ = try running.started()
        #expect(try running.event() == .exited(status: 0, isAlone: false))
        let lines = try running.lines(2)
        #expect(lines.contains("0::/\(name)"))
        let pid = try #require(lines.last.flatMap { pid_t($0) })
        #expect(exists("\(root)/\(name)"))
        let second = try Running(request, by: helper)
        guard case .failed(.controlGroup, EEXIST, let detail) = try second.event() else {
            Issue.record("a group that exists was taken")
            return
        }
        #expect(String(decoding: detail, as: UTF8.self).contains("exists already"))
        try running.send(.end)
        #expect(try running.event() == .gone)
        #expect(!isAlive(pid))
        #expect(!exists("\(root)/\(name)"))
    }

    @Test("version 2: a controller that is not there is an error", .enabled(if: Hierarchy.unified != nil))
    func missing() throws {
        let root = try #require(Hierarchy.unified)
        let name = "causeway-missing-\(getpid())"
        var request = ProcessRequest("/bin/true")
        request.controlGroup = .init(
            isUnified: true, path: Array(name.utf8), controllers: [],
            settings: [.init(key: Array("beer.max".utf8), value: Array("1".utf8))])
        guard case .failed(.controlGroup, ENOENT, _) = try Running(request, by: helper).event() else {
            Issue.record("a setting was ignored")
            return
        }
        #expect(!exists("\(root)/\(name)"))
        for path in ["", "../x", "a/./b"] {
            request.controlGroup?.path = Array(path.utf8)
            guard case .failed(.controlGroup, EINVAL, _) = try Running(request, by: helper).event() else {
                Issue.record("the path '\(path)' was taken")
                return
            }
        }
    }

    @Test("version 1: each setting goes to its controller", .enabled(if: Hierarchy.pids != nil))
    func first() throws {
        let root = try #require(Hierarchy.pids)
        let name = "causeway-test-\(getpid())-one"
        var request = ProcessRequest(script: "cat /proc/self/cgroup; cat \(root)/\(name)/pids.max; read x")
        request.controlGroup = .init(
            isUnified: false, path: Array(name.utf8), controllers: [Array("pids".utf8)],
            settings: [
                .init(controller: Array("pids".utf8), key: Array("pids.max".utf8), value: Array("17".utf8))
            ])
        let running = try Running(request, by: helper)
        _ = try running.started()
        running.closeInput()
        running.readAll()
        #expect(running.output.contains(":pids:/\(name)\n"))
        #expect(running.output.hasSuffix("\n17\n"))
        _ = try running.status()
        #expect(!exists("\(root)/\(name)"))
        request.controlGroup?.settings[0].controller = Array("memory".utf8)
        guard case .failed(.controlGroup, EINVAL, _) = try Running(request, by: helper).event() else {
            Issue.record("a setting of another controller was taken")
            return
        }
        #expect(!exists("\(root)/\(name)"))
    }
}
