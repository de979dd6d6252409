//! The gateway's log; in native tests, standard error.

const std = @import("std");
const builtin = @import("builtin");

const line_bytes_max = 1024;

pub fn debug(comptime format: []const u8, values: anytype) void {
    print(0, format, values);
}

pub fn info(comptime format: []const u8, values: anytype) void {
    print(1, format, values);
}

pub fn warn(comptime format: []const u8, values: anytype) void {
    print(2, format, values);
}

pub fn err(comptime format: []const u8, values: anytype) void {
    print(3, format, values);
}

fn print(level: i32, comptime format: []const u8, values: anytype) void {
    var buffer: [line_bytes_max]u8 = undefined;
    var writer: std.Io.Writer = .fixed(&buffer);
    // What does not fit is cut off, as the gateway would do.
    writer.print(format, values) catch {};
    write(level, writer.buffered());
}

pub fn write(level: i32, line: []const u8) void {
    if (comptime builtin.target.cpu.arch.isWasm()) {
        const gateway = struct {
            extern "sluice" fn log(level: i32, line: [*]const u8, len: usize) void;
        };
        gateway.log(level, line.ptr, line.len);
    } else {
        std.debug.print("{s}\n", .{line});
    }
}
