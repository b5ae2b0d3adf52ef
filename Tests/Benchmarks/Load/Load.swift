import ArgumentParser
import Glibc
import Streams

/// The client of the server benchmarks, and the server that is their limit.
///
/// Each subcommand prints one line when it is done or, `echo`, when it is ready.
@main
struct Load: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "causeway-load",
        abstract: "What the benchmarks load servers with, and what they compare with.",
        subcommands: [
            PingPong.self, Churn.self, Hold.self, Echo.self, Pipe.self, Condition.self,
            Cores.self,
        ])
}

/// Where the server is, and how long to load it.
struct Target: ParsableArguments {
    @Option(help: "The server's port on 127.0.0.1.") var port: UInt16
    @Option(help: "Connections at the same time.") var connections = 1
    @Option(help: "Bytes of one message.") var size = 64
    @Option(help: "How long to measure, in milliseconds.") var milliseconds = 1000

    func validate() throws {
        guard connections > 0, size > 0, milliseconds > 0 else {
            throw ValidationError("connections, size and milliseconds are numbers from 1")
        }
    }
}

/// One message there and back on each connection, again and again: prints `rate p50 p99`, in messages a second
/// and microseconds.
struct PingPong: ParsableCommand {
    @OptionGroup var target: Target

    func run() throws {
        let client = try Client(target)
        try client.run(milliseconds: target.milliseconds / 4)
        client.forget()
        let seconds = try client.run(milliseconds: target.milliseconds)
        print(Double(client.count) / seconds, client.latencies.quantile(0.5), client.latencies.quantile(0.99))
    }
}

/// Connect, one message there and back, close: prints `rate p50 p99` of whole connections.
struct Churn: ParsableCommand {
    @OptionGroup var target: Target

    func run() throws {
        let client = try Client(target)
        client.reconnects = true
        try client.run(milliseconds: target.milliseconds / 4)
        client.forget()
        let seconds = try client.run(milliseconds: target.milliseconds)
        print(Double(client.count) / seconds, client.latencies.quantile(0.5), client.latencies.quantile(0.99))
    }
}

/// Holds idle connections until its standard input ends; prints `ready` when all have had one message there and
/// back.
struct Hold: ParsableCommand {
    @OptionGroup var target: Target

    func run() throws {
        let client = try Client(target)
        try client.runOnce()
        print("ready")
        fflush(nil)
        var byte: UInt8 = 0
        while read(0, &byte, 1) > 0 {}
    }
}
