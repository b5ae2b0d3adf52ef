import CPlatform

/// Nanoseconds of the monotonic clock.
///
/// The corresponding C function is `clock_gettime(CLOCK_MONOTONIC)`.
@inlinable
public func monotonicNanoseconds() -> Int64 { cplatform_monotonic_nanoseconds() }
