import Glibc
import Streams
import Testing

@Suite("causeway-spawn starts programs")
struct LaunchTests {
    private let helper: Helper

    init() throws { helper = try Helper() }

    private func output(_ request: ProcessRequest) throws -> String {
        let running = try Running(request, by: helper)
        #expect(try running.exited() == 0)
        #expect(running.errors == "")
        return running.output
    }

    private typealias Failed = (step: GuardianEvent.Step, error: Int32, detail: String)

    private func failure(_ request: ProcessRequest) throws -> Failed {
        let running = try Running(request, by: helper)
        guard case .failed(let step, let error, let detail) = try running.event() else {
            throw Unexpected()
        }
        #expect(try running.event() == nil)
        return (step, error, String(decoding: detail, as: UTF8.self))
    }

    private struct Unexpected: Error {}

    @Test("what goes in comes out, on both outputs")
    func streams() throws {
        let running = try Running(ProcessRequest(script: "read line; echo $line; cat >&2"), by: helper)
        let pid = try running.started()
        #expect(isAlive(pid))
        running.write("hello\nworld")
        #expect(try running.lines(1) == ["hello"])
        running.closeInput()
        running.readAll()
        #expect(running.errors == "world")
        #expect(try running.event() == .exited(status: 0, isAlone: true))
        #expect(try running.event() == nil)
    }

    @Test("an exit is told from a signal with the same number", arguments: [0, 1, 128, 143, 255])
    func exits(code: Int32) throws {
        #expect(try Running(ProcessRequest(script: "exit \(code)"), by: helper).exited() == code << 8)
    }

    @Test("signals", arguments: [SIGTERM, SIGKILL, SIGSEGV])
    func signals(number: Int32) throws {
        let status = try Running(ProcessRequest(script: "kill -\(number) $$"), by: helper).exited()
        #expect(status & 0x7F == number)
    }

    @Test("arguments and environment are exactly what is asked for")
    func texts() throws {
        var request = ProcessRequest("/usr/bin/env")
        request.environment = [Array("A=ä b".utf8), Array("EMPTY=".utf8)]
        #expect(try output(request) == "A=ä b\nEMPTY=\n")
        request = ProcessRequest("/bin/sh", "-c", "echo \"$0|$1|$2\"", "name", "", "*")
        #expect(try output(request) == "name||*\n")
    }

    @Test("a request that is a message, or, where it is larger, comes in a file")
    func large() throws {
        let rest = ProcessRequest("/bin/echo", "").encoded.count
        let limit = SpawnHelper.mostBytes - rest
        for size in [0, 1, limit - 1, limit, limit + 1, 100_000] {
            let text = String(repeating: "x", count: size)
            #expect(try output(ProcessRequest("/bin/echo", text)) == text + "\n")
        }
    }

    @Test("a terminal is the controlling one, of the size that was asked for")
    func terminal() throws {
        var request = ProcessRequest(script: "tty >/dev/null && stty size </dev/tty; echo e >&2; test -t 0")
        request.terminal = .init(rows: 12, columns: 345)
        (request.input, request.output, request.error) = (.terminal, .terminal, .terminal)
        #expect(try output(request) == "12 345\r\ne\r\n")
        request.error = .passed
        let running = try Running(request, by: helper)
        #expect(try running.exited() == 0)
        #expect(running.output == "12 345\r\n")
        #expect(running.errors == "e\n")
    }

    @Test("a terminal that was not asked for is refused")
    func noTerminal() throws {
        var request = ProcessRequest("/bin/true")
        request.input = .terminal
        let failed = try failure(request)
        #expect(failed.step == .input)
        #expect(failed.error == EINVAL)
    }

    @Test("the name that a program sees is the first argument")
    func name() throws {
        var request = ProcessRequest(script: "echo $0")
        request.arguments[0] = Array("other".utf8)
        request.arguments.removeLast(2)
        request.arguments += [Array("-c".utf8), Array("cat /proc/$$/cmdline".utf8)]
        #expect(try output(request).hasPrefix("other\0-c\0"))
    }

    @Test("the directory: the node's, or another")
    func directory() throws {
        var request = ProcessRequest("/bin/pwd")
        let here = try #require(getcwd(nil, 0))
        defer { free(here) }
        #expect(try output(request) == String(cString: here) + "\n")
        request.directory = Array("/usr/../usr/bin".utf8)
        #expect(try output(request) == "/usr/bin\n")
    }

    @Test("mask, niceness and limits")
    func properties() throws {
        var request = ProcessRequest(script: "umask; nice; ulimit -n; ulimit -Hn; ulimit -c")
        request.mask = 0o037
        request.nice = 7
        request.limits = [
            .init(name: Array("nofile".utf8), soft: 33, hard: 44),
            .init(name: Array("core".utf8), soft: 0, hard: 0),
        ]
        #expect(try output(request) == "0037\n7\n33\n44\n0\n")
    }

    @Test("signals are as a program expects them, in a session of its own")
    func session() throws {
        let text = try output(ProcessRequest("/bin/cat", "/proc/self/status", "/proc/self/stat"))
        for name in ["SigBlk", "SigIgn", "SigPnd"] { #expect(text.contains("\(name):\t0000000000000000\n")) }
        let line = try #require(text.split(separator: "\n").last)
        let fields = line.split(separator: " ")
        // pid (cat) S parent group session terminal
        #expect(fields[0] == fields[4] && fields[0] == fields[5])
        #expect(fields[6] == "0")
    }

    @Test("nothing is open but the three")
    func descriptors() throws {
        // The fourth is that of ls itself.
        #expect(try output(ProcessRequest("/bin/ls", "/proc/self/fd")) == "0\n1\n2\n3\n")
    }

    @Test("files instead of pipes")
    func files() throws {
        let path = temporaryPath("causeway-spawn-test")
        defer { unlink(path) }
        var request = ProcessRequest(script: "echo one; echo two >&2")
        request.output = .file(path: Array(path.utf8), isAppended: false)
        request.error = .sameAsOutput
        request.input = .null
        #expect(try output(request) == "")
        request.output = .file(path: Array(path.utf8), isAppended: true)
        request.error = .null
        #expect(try output(request) == "")
        var reading = ProcessRequest("/bin/cat")
        reading.input = .file(path: Array(path.utf8), isAppended: false)
        #expect(try output(reading) == "one\ntwo\none\n")
    }

    @Test("a script without interpreter is the shell's")
    func plainScript() throws {
        let path = temporaryPath("causeway-spawn-script")
        defer { unlink(path) }
        let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o755)
        _ = write(file, "echo plain $1\n", 14)
        close(file)
        #expect(try output(ProcessRequest(path, "x")) == "plain x\n")
    }

    @Test("what cannot be executed is an error")
    func executable() throws {
        #expect(try failure(ProcessRequest("/nowhere/program")) == (.exec, ENOENT, ""))
        #expect(try failure(ProcessRequest("/etc/passwd")) == (.exec, EACCES, ""))
        #expect(try failure(ProcessRequest("/tmp")) == (.exec, EACCES, ""))
        #expect(try failure(ProcessRequest("/bin/echo", "a\0b")).error == EINVAL)
    }

    @Test("what it cannot have is an error that says so")
    func refused() throws {
        var request = ProcessRequest("/bin/true")
        request.directory = Array("/nowhere".utf8)
        #expect(try failure(request) == (.directory, ENOENT, "/nowhere"))
        request = ProcessRequest("/bin/true")
        request.output = .file(path: Array("/nowhere/file".utf8), isAppended: false)
        #expect(try failure(request) == (.output, ENOENT, "/nowhere/file"))
        request = ProcessRequest("/bin/true")
        request.limits = [.init(name: Array("beer".utf8), soft: 1, hard: 1)]
        #expect(try failure(request) == (.limit, EINVAL, "there is no limit beer"))
        request.limits = [.init(name: Array("nofile".utf8), soft: 2, hard: 1)]
        #expect(try failure(request).error == EINVAL)
        request = ProcessRequest("/bin/true")
        request.user = .name(Array("nobody-at-all".utf8))
        #expect(try failure(request) == (.user, ENOENT, "there is no user nobody-at-all"))
        request.user = .name(Array("root".utf8))
        #expect(try failure(request).error == EPERM)
        request.user = .number(123_456)
        #expect(try failure(request).detail.contains("say gid, too"))
    }

    @Test("another user, with its groups and none of root's", .enabled(if: geteuid() == 0))
    func user() throws {
        var request = ProcessRequest("/usr/bin/id")
        request.user = .name(Array("nobody".utf8))
        #expect(try output(request) == "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n")
        request.user = .number(123_456)
        request.group = .name(Array("0x7b".utf8))
        #expect(try output(request) == "uid=123456 gid=123 groups=123\n")
        request.groups = [.number(5), .number(123)]
        #expect(try output(request).contains("groups=123,5"))
    }

    @Test("many at once")
    func many() throws {
        let all = try (0..<300).map { try Running(ProcessRequest("/bin/echo", "\($0)"), by: helper) }
        for (number, running) in all.enumerated() {
            #expect(try running.exited() == 0)
            #expect(running.output == "\(number)\n")
        }
    }
}
