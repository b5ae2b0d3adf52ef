import CPlatform
import Glibc
import Streams

/// The control group of a program, of either version: made for it, and removed with all that is in it.
struct ControlGroup {
    private let wanted: ProcessRequest.ControlGroup
    /// The directories that were made: one, or for version 1 one for each controller.
    private var directories: [String] = []

    init(_ wanted: ProcessRequest.ControlGroup) { self.wanted = wanted }

    /// Makes it and sets what is to be set.
    mutating func make() throws(Failure) {
        let path = String(decoding: wanted.path, as: UTF8.self)
        let parts = path.split(separator: "/").map(String.init)
        guard !parts.isEmpty, !parts.contains(".."), !parts.contains(".") else {
            throw Failure(.controlGroup, EINVAL, "'\(path)' is no path of a control group")
        }
        let mounts = Mount.all
        if wanted.isUnified {
            guard let mount = mounts.first(where: { $0.type == "cgroup2" }) else {
                throw Failure(.controlGroup, ENOENT, "no hierarchy of version 2 is mounted")
            }
            try make(parts, below: mount.place, needing: controllers)
        } else {
            for controller in wanted.controllers.map({ String(decoding: $0, as: UTF8.self) }) {
                guard let mount = mounts.first(where: { $0.has(controller) }) else {
                    throw Failure(
                        .controlGroup, ENOENT, "no controller \(controller) of version 1 is mounted")
                }
                try make(parts, below: mount.place, needing: [])
            }
        }
        for setting in wanted.settings { try write(setting) }
    }

    /// Of version 2: those asked for and those of the settings.
    private var controllers: [String] {
        let ofSettings = wanted.settings.compactMap { setting in
            setting.key.split(separator: UInt8(ascii: ".")).first.map { String(decoding: $0, as: UTF8.self) }
        }
        let all = wanted.controllers.map { String(decoding: $0, as: UTF8.self) } + ofSettings
        return Set(all).subtracting(["cgroup"]).sorted()
    }

    private mutating func make(
        _ parts: [String], below root: String, needing controllers: [String]
    ) throws(Failure) {
        var directory = root
        for (index, part) in parts.enumerated() {
            // Those below must be allowed it first; where that is refused, the look afterwards tells.
            for controller in controllers {
                _ = write("+" + controller, to: directory + "/cgroup.subtree_control")
            }
            directory += "/" + part
            if mkdir(directory, 0o755) == 0 {
                if index == parts.count - 1 { directories.append(directory) }
                continue
            }
            let error = Errno.last()
            if error.code != EEXIST {
                throw Failure(.controlGroup, error.code, "'\(directory)' could not be made")
            }
            if index == parts.count - 1 {
                throw Failure(
                    .controlGroup, EEXIST, "'\(directory)' exists already: choose a path that does not")
            }
        }
        let has = contents(of: directory + "/cgroup.controllers").split { $0 == 32 || $0 == 10 }
            .map { String(decoding: $0, as: UTF8.self) }
        for controller in controllers where !has.contains(controller) {
            throw Failure(.controlGroup, ENOENT, "'\(directory)' has no controller \(controller)")
        }
    }

    private func write(_ setting: ProcessRequest.Setting) throws(Failure) {
        let key = String(decoding: setting.key, as: UTF8.self)
        let value = String(decoding: setting.value, as: UTF8.self)
        let index = wanted.isUnified ? 0 : wanted.controllers.firstIndex(of: setting.controller)
        guard let index, index < directories.count, !key.contains("/") else {
            throw Failure(.controlGroup, EINVAL, "'\(key)' is of a controller that the group does not have")
        }
        let path = directories[index] + "/" + key
        if let error = write(value, to: path) {
            throw Failure(.controlGroup, error.code, "'\(value)' could not be written to '\(path)'")
        }
    }

    private func write(_ text: String, to path: String) -> Errno? {
        var text = text
        do throws(Errno) {
            let file = Descriptor(owning: try retryingOnInterrupt { open(path, O_WRONLY | O_CLOEXEC) })
            let number = file.number
            _ = try retryingOnInterrupt { text.withUTF8 { Glibc.write(number, $0.baseAddress, $0.count) } }
            return nil
        } catch { return error }
    }

    /// The files into which the program writes itself.
    func openMembers() throws(Failure) -> [SharedDescriptor] {
        var files: [SharedDescriptor] = []
        for directory in directories {
            do throws(Errno) {
                let path = directory + "/cgroup.procs"
                files.append(SharedDescriptor(try retryingOnInterrupt { open(path, O_WRONLY | O_CLOEXEC) }))
            } catch { throw Failure(.joinGroup, error.code, directory) }
        }
        return files
    }

    /// Kills who is still in it, and removes it.
    func end() { for directory in directories { end(directory) } }

    private func end(_ directory: String) {
        var pauses: Int32 = 1
        // Processes that are being killed stay members for a while.
        while true {
            _ = write("1", to: directory + "/cgroup.kill")
            let groups = [directory] + ControlGroup.below(directory)
            var isEmpty = true
            for group in groups {
                for member in contents(of: group + "/cgroup.procs").split(separator: UInt8(ascii: "\n")) {
                    isEmpty = false
                    // 0 is a process that cannot be seen from here.
                    let pid = pid_t(String(decoding: member, as: UTF8.self)) ?? 0
                    if pid > 1 { _ = kill(pid, SIGKILL) }
                }
            }
            for group in groups.reversed() { _ = rmdir(group) }
            if isEmpty, access(directory, F_OK) != 0 { return }
            _ = poll(nil, 0, pauses)
            // Where it cannot be removed at all, for want of rights, it is left.
            pauses *= 2
            if pauses > 1000 { return }
        }
    }

    private static func below(_ directory: String) -> [String] {
        entries(in: directory).map { directory + "/" + $0 }.filter { access($0 + "/cgroup.procs", F_OK) == 0 }
            .flatMap { [$0] + below($0) }
    }
}

/// A mounted hierarchy of control groups.
private struct Mount {
    let place: String
    let type: String
    let options: [String]

    /// Whether it is one of version 1 with this controller.
    func has(_ controller: String) -> Bool { type == "cgroup" && options.contains(controller) }

    /// All of them. A line of the file is `id parent device root place options… - type source options`.
    static var all: [Mount] {
        contents(of: "/proc/self/mountinfo").split(separator: UInt8(ascii: "\n")).compactMap { line in
            let fields = line.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
            guard let dash = fields.firstIndex(of: "-"), dash > 5, fields.count > dash + 3 else { return nil }
            return Mount(
                place: fields[4], type: fields[dash + 1],
                options: fields[dash + 3].split(separator: ",").map(String.init))
        }
    }
}
