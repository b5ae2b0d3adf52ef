// swift-tools-version: 6.2
import PackageDescription

// Exclusivity is proven at compile time where it can be. The checks at run time would trap, which kills
// the node, and cost 2 % of a call.
let common: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

// The static Swift runtime loads in 3 ms and, unlike the dynamic one, installs no signal handlers in
// its hosts. --static-swift-stdlib does nothing for a dynamic product, hence the flags. Symbols of the
// runtime stay private; `nodelete` because threads of the core outlive any dlclose by a host.
let staticRuntime: [LinkerSetting] = [
    .unsafeFlags(
        ["-static-stdlib"]
            + ["--gc-sections", "--exclude-libs=ALL", "-z", "nodelete"].flatMap { ["-Xlinker", $0] },
        .when(configuration: .release))
]

// Without --as-needed and -nostartfiles the linker drags the Swift runtime into this plain C library.
let plainC: [LinkerSetting] = [
    .unsafeFlags(
        ["-static-stdlib", "-nostartfiles"]
            + ["--gc-sections", "--as-needed"].flatMap { ["-Xlinker", $0] })
]

// The guardian has nothing of the dynamic linker in it: it is forked for every program. The linker is Swift's own:
// Debian's warns of a dlopen in the runtime that is never called.
let staticProgram: [LinkerSetting] = [
    .unsafeFlags(
        ["-static-executable", "-use-ld=lld", "-Xlinker", "--gc-sections"],
        .when(configuration: .release))
]

let package = Package(
    name: "causeway",
    products: [
        .library(name: "Streams", targets: ["Streams"]),  // for Tests/Benchmarks
        .library(name: "causeway", type: .dynamic, targets: ["Causeway"]),
        .library(name: "causeway_loader", type: .dynamic, targets: ["NifLoader"]),
        .executable(name: "causeway-spawn", targets: ["causeway-spawn"]),
    ],
    targets: [
        .systemLibrary(name: "CErlNif", path: "CShims/CErlNif"),
        .systemLibrary(name: "CPython", path: "CShims/CPython", pkgConfig: "python3"),
        .systemLibrary(name: "CPlatform", path: "CShims/CPlatform"),
        .target(name: "NifLoader", path: "CShims/NifLoader", linkerSettings: plainC),
        .target(
            name: "Streams", dependencies: ["CPlatform"],
            swiftSettings: common + [.strictMemorySafety()]),
        .target(name: "Beam", dependencies: ["CErlNif"], swiftSettings: common),
        .target(name: "Python", dependencies: ["CPython"], swiftSettings: common),
        .target(
            name: "Causeway", dependencies: ["Streams", "Beam", "Python", "CPlatform"],
            swiftSettings: common, linkerSettings: staticRuntime),
        .executableTarget(
            name: "causeway-spawn", dependencies: ["Streams", "CPlatform"],
            swiftSettings: common, linkerSettings: staticProgram),
        .testTarget(name: "StreamsTests", dependencies: ["Streams"], swiftSettings: common),
        .testTarget(
            name: "SpawnTests", dependencies: ["Streams", "CPlatform", "causeway-spawn"],
            swiftSettings: common),
    ]
)
