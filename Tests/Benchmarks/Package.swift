// swift-tools-version: 6.2
import PackageDescription

// What the benchmarks load servers with. A package of its own, because its argument parser comes from the
// network: whoever builds the library needs none.
let package = Package(
    name: "causeway-benchmarks",
    dependencies: [
        .package(name: "causeway", path: "../.."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        .executableTarget(
            name: "causeway-load",
            dependencies: [
                .product(name: "Streams", package: "causeway"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Load",
            swiftSettings: [
                .swiftLanguageMode(.v6),
                .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
            ])
    ]
)
