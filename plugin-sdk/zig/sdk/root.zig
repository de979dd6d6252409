//! The module's exports: what the gateway calls. It is the root of the build; the plugin is a module below it.

const std = @import("std");
const sluice = @import("sluice");
const Plugin = @import("plugin").Plugin;

const gpa = std.heap.wasm_allocator;

/// Says what went wrong and ends the instance: the gateway counts it as a fault.
pub const panic = std.debug.FullPanic(struct {
    fn call(message: []const u8, _: ?usize) noreturn {
        sluice.log.write(3, message);
        @trap();
    }
}.call);

export fn sluice_alloc(len: usize) [*]u8 {
    const bytes = gpa.alloc(u8, len) catch @trap();
    return bytes.ptr;
}

export fn sluice_process(document: [*]const u8, len: usize) u64 {
    const answer = sluice.process(Plugin, gpa, document[0..len]) catch @trap();
    return @as(u64, @intFromPtr(answer.ptr)) << 32 | answer.len;
}
