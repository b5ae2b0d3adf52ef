import CPlatform
import Glibc

/// The node's side of `causeway-spawn`: the process that starts programs for it, each with a guardian.
///
/// It is started once. When this object ends, or the process does, however that happens, the guardians end all
/// that they have started.
public final class SpawnHelper: Sendable {
    private let socket: Descriptor
    /// Its process.
    public let pid: Int32

    /// Starts it. Waits until the system executes the file.
    ///
    /// The corresponding C function is `posix_spawn`. Throws what the system says, as `ENOENT`.
    public init(path: String) throws(Errno) {
        let sockets = try Descriptor.messageSockets()
        var pid: Int32 = -1
        let number = sockets.second.number
        let result = unsafe path.withCString { unsafe cplatform_spawn_helper($0, number, &pid) }
        guard result == 0 else { throw Errno(result) }
        self.pid = pid
        socket = sockets.takeFirst()
    }

    /// How large the message of a request is at most: a larger one comes in a file, after the directory, and the message
    /// is one byte then.
    public static let mostBytes = 4096

    /// The socket by which requests go to it: writable while it takes more.
    public var descriptor: Int32 { socket.number }

    /// Has a program started. What becomes of it its guardian tells. Never waits.
    ///
    /// - Throws: `EAGAIN` where the helper is behind with earlier ones, `EPIPE` where it is gone.
    public func launch(_ request: ProcessRequest) throws(Errno) -> ProcessEnds {
        let control = try Descriptor.messageSockets()
        // The guardian's and the program's ends: ours are closed when they are sent.
        var theirs = [SharedDescriptor(control.second.release())]
        var ends = ProcessEnds(control: control.first)
        let message = try SpawnHelper.message(request, &theirs)
        if let size = request.terminal {
            let terminal = try Descriptor.terminal(size)
            theirs.append(SharedDescriptor(terminal.second.release()))
            // Each has a number of its own, as each is watched and closed for itself.
            if request.input == .terminal {
                ends.input = .some(try Descriptor.duplicate(terminal.first.number))
            }
            ends.output = .some(terminal.first)
            ends.hasTerminal = true
        }
        if request.input == .passed {
            let pipe = try Descriptor.pipe()
            theirs.append(SharedDescriptor(pipe.first.release()))
            ends.input = .some(pipe.second)
        }
        if request.output == .passed { ends.output = .some(try SpawnHelper.outputPipe(&theirs)) }
        if request.error == .passed { ends.error = .some(try SpawnHelper.outputPipe(&theirs)) }
        try ends.makeNonBlocking()
        try socket.send(message, with: theirs.map(\.number))
        for descriptor in theirs { descriptor.close() }
        return ends
    }

    /// The same for a program whose standard streams are the caller's: each that is `.passed` is the next of these
    /// descriptors, which stay open here.
    ///
    /// - Returns: the connection to the guardian.
    /// - Throws: as the other one.
    public func launch(_ request: ProcessRequest, passing stdio: [Int32]) throws(Errno) -> Descriptor {
        let control = try Descriptor.messageSockets()
        var theirs = [SharedDescriptor(control.second.release())]
        let ours = control.first
        let message = try SpawnHelper.message(request, &theirs)
        try socket.send(message, with: theirs.map(\.number) + stdio)
        for descriptor in theirs { descriptor.close() }
        return ours
    }

    /// The message that asks for a program, and the descriptors that come with any.
    private static func message(
        _ request: ProcessRequest, _ theirs: inout [SharedDescriptor]
    ) throws(Errno) -> [UInt8] {
        // Where the node is now, not where it was when the helper started.
        let flags = Int32(truncatingIfNeeded: cplatform_path_only) | O_DIRECTORY | O_CLOEXEC
        theirs.append(SharedDescriptor(try retryingOnInterrupt { unsafe Glibc.open(".", flags) }))
        let message = request.encoded
        if message.count <= SpawnHelper.mostBytes { return message }
        theirs.append(try SpawnHelper.file(with: message))
        return [0]
    }

    private static func outputPipe(_ theirs: inout [SharedDescriptor]) throws(Errno) -> Descriptor {
        let pipe = try Descriptor.pipe()
        theirs.append(SharedDescriptor(pipe.second.release()))
        return pipe.first
    }

    /// For what may be larger than any message.
    private static func file(with bytes: [UInt8]) throws(Errno) -> SharedDescriptor {
        let file = SharedDescriptor(try retryingOnInterrupt { cplatform_memory_file() })
        let number = file.number
        var written = 0
        while written < bytes.count {
            let place = written
            written += try retryingOnInterrupt {
                // Within the array: `place` is below its count.
                unsafe bytes.withUnsafeBytes {
                    unsafe Glibc.write(number, $0.baseAddress?.advanced(by: place), $0.count - place)
                }
            }
        }
        return file
    }

    /// Waits for the end of its process, after the end of its socket has told that it comes.
    public func reap() {
        var status: Int32 = 0
        _ = try? retryingOnInterrupt { unsafe waitpid(pid, &status, 0) }
    }
}

/// The node's ends of what joins it with a program: none of them blocks.
@frozen
public struct ProcessEnds: ~Copyable {
    /// Messages from and to the guardian.
    public var control: Descriptor
    /// What is written here the program reads.
    public var input: Descriptor?
    /// What it writes is read here.
    public var output: Descriptor?
    /// The same for its standard error.
    public var error: Descriptor?
    /// Whether `output` is its terminal, and `input`, where there is one, may be.
    public var hasTerminal = false

    init(control: consuming Descriptor) { self.control = control }

    fileprivate borrowing func makeNonBlocking() throws(Errno) {
        try input?.makeNonBlocking()
        try output?.makeNonBlocking()
        try error?.makeNonBlocking()
    }
}
