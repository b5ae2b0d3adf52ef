import CPlatform
import Glibc
import Streams
import Testing

/// How long a test waits for something that must happen, before it says that it did not. Only ever reached by a
/// defect.
let patience: Int32 = 30_000

/// The executable, which stands beside that of the tests. With a sanitizer it needs settings: see .ci/sanitize.
private let executable: String = {
    if let other = getenv("CAUSEWAY_SPAWN") { return String(cString: other) }
    var path = [UInt8](repeating: 0, count: 4096)
    let count = path.withUnsafeMutableBytes { bytes in
        readlink("/proc/self/exe", bytes.assumingMemoryBound(to: CChar.self).baseAddress!, bytes.count)
    }
    let parts = path[..<max(0, count)].split(separator: UInt8(ascii: "/")).dropLast()
    return "/" + parts.map { String(decoding: $0, as: UTF8.self) + "/" }.joined() + "causeway-spawn"
}()

/// A helper of this process's own.
final class Helper {
    private(set) var spawn: SpawnHelper?
    let pid: pid_t

    init() throws {
        let spawn = try SpawnHelper(path: executable)
        self.spawn = spawn
        pid = spawn.pid
    }

    deinit { _ = end() }

    /// What the end of the node does. How the helper has ended, which it does after all that it has started.
    func end() -> Int32 {
        if spawn == nil { return 0 }
        spawn = nil
        var status: Int32 = -1
        waitpid(pid, &status, 0)
        return status
    }
}

extension ProcessRequest {
    /// A program that is found as a shell does, with arguments.
    init(_ path: String, _ arguments: String...) {
        self.init()
        self.path = Array(path.utf8)
        self.arguments = ([path] + arguments).map { Array($0.utf8) }
        environment = [Array("PATH=/usr/bin:/bin".utf8)]
    }

    /// A script for the shell.
    init(script: String) { self.init("/bin/sh", "-c", script) }
}

/// A program that a guardian looks after.
final class Running {
    private var ends: ProcessEnds?
    /// All that it has written so far, and not been asked for.
    private(set) var output = ""
    private(set) var errors = ""

    init(_ request: ProcessRequest, by helper: Helper) throws {
        while let spawn = helper.spawn {
            do throws(Errno) {
                ends = try spawn.launch(request)
                return
            } catch {
                if error.code != EAGAIN { throw error }
                wait(for: spawn.descriptor, POLLOUT)
            }
        }
    }

    /// Its next event; nil where the guardian is gone without a word.
    func event(sourceLocation: SourceLocation = #_sourceLocation) throws -> GuardianEvent? {
        guard let control = ends?.control.number else { return nil }
        wait(for: control, POLLIN, sourceLocation: sourceLocation)
        guard let message = try ends?.control.receive(atMost: GuardianEvent.mostBytes) else { return nil }
        return try GuardianEvent(decoding: message.bytes)
    }

    /// Its number, when it runs.
    func started(sourceLocation: SourceLocation = #_sourceLocation) throws -> pid_t {
        guard case .started(let pid) = try event(sourceLocation: sourceLocation) else {
            Issue.record("it did not start", sourceLocation: sourceLocation)
            return -1
        }
        return pid
    }

    /// Starts, runs and ends: how `wait` tells it.
    func exited(sourceLocation: SourceLocation = #_sourceLocation) throws -> Int32 {
        _ = try started(sourceLocation: sourceLocation)
        readAll(sourceLocation: sourceLocation)
        return try status(sourceLocation: sourceLocation)
    }

    /// How it has ended, when nothing of it is left.
    func status(sourceLocation: SourceLocation = #_sourceLocation) throws -> Int32 {
        guard case .exited(let status, let isAlone) = try event(sourceLocation: sourceLocation) else {
            Issue.record("it did not end", sourceLocation: sourceLocation)
            return -1
        }
        if !isAlone {
            #expect(try event(sourceLocation: sourceLocation) == .gone, sourceLocation: sourceLocation)
        }
        #expect(try event(sourceLocation: sourceLocation) == nil, sourceLocation: sourceLocation)
        return status
    }

    /// Reads both outputs to their ends.
    func readAll(sourceLocation: SourceLocation = #_sourceLocation) {
        while let text = read(ends?.output?.number, sourceLocation) { output += text }
        while let text = read(ends?.error?.number, sourceLocation) { errors += text }
    }

    /// Reads output until it has so many lines, and gives them.
    func lines(_ count: Int, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String] {
        while output.count(where: { $0 == "\n" }) < count {
            output += try #require(read(ends?.output?.number, sourceLocation), sourceLocation: sourceLocation)
        }
        return output.split(separator: "\n").map(String.init)
    }

    private func read(_ number: Int32?, _ sourceLocation: SourceLocation) -> String? {
        guard let number else { return nil }
        wait(for: number, POLLIN, sourceLocation: sourceLocation)
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = Glibc.read(number, &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }

    func send(_ command: GuardianCommand) throws { try ends?.control.send(command.encoded) }

    /// Puts bytes into its standard input.
    func write(_ text: String) {
        if let number = ends?.input?.number { _ = Glibc.write(number, text, text.utf8.count) }
    }

    func closeInput() { ends?.input = nil }

    /// What the end of the node does.
    func disconnect() { ends = nil }
}

/// Waits for a descriptor. That nothing happens is a failure.
func wait(for number: Int32, _ event: Int32, sourceLocation: SourceLocation = #_sourceLocation) {
    var set = pollfd(fd: number, events: Int16(event), revents: 0)
    let result = poll(&set, 1, patience)
    #expect(result > 0, "nothing happens", sourceLocation: sourceLocation)
}

/// Whether there is such a process that is no zombie.
func isAlive(_ pid: pid_t) -> Bool {
    let file = open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
    if file < 0 { return false }
    defer { close(file) }
    var text = [UInt8](repeating: 0, count: 512)
    let count = max(0, read(file, &text, text.count))
    guard let end = text[..<count].lastIndex(of: UInt8(ascii: ")")), end + 2 < count else { return false }
    return text[end + 2] != UInt8(ascii: "Z") && text[end + 2] != UInt8(ascii: "X")
}

/// Waits until processes are gone. That they are not is a failure.
func expectGone(_ pids: [pid_t], sourceLocation: SourceLocation = #_sourceLocation) {
    let limit = monotonicNanoseconds() + Int64(patience) * 1_000_000
    while let alive = pids.first(where: isAlive) {
        sched_yield()
        if monotonicNanoseconds() > limit {
            Issue.record("\(alive) lives", sourceLocation: sourceLocation)
            return
        }
    }
}

/// Who the parent of a process is.
func parent(of pid: pid_t) -> pid_t? {
    let file = open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
    if file < 0 { return nil }
    defer { close(file) }
    var text = [UInt8](repeating: 0, count: 512)
    let count = max(0, read(file, &text, text.count))
    guard let end = text[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let fields = text[end..<count].split(separator: UInt8(ascii: " "))
    return fields.count > 2 ? pid_t(String(decoding: fields[2], as: UTF8.self)) : nil
}

/// The path of a file that is not there yet, where temporary files are.
func temporaryPath(_ name: String) -> String {
    let directory = getenv("TMPDIR").map { String(cString: $0) } ?? P_tmpdir
    return "\(directory)/\(name)-\(getpid())"
}
