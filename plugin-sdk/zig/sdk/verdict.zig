//! What a plugin answers.

const std = @import("std");
const Allocator = std.mem.Allocator;

/// What becomes of an order.
pub const Verdict = union(enum) {
    /// The order may pass as it is.
    accept,
    /// The order may pass with these changes, applied in this sequence. See `Patch`.
    enrich: []const Op,
    /// The order is refused for good. At least one problem.
    reject: []const Problem,
    /// "Ask me again": the order is held and judged anew.
    retry_later: RetryLater,
    /// The plugin itself has failed. The order is held.
    fault: Fault,
};

/// One finding about an order, or about the plugin's configuration.
pub const Problem = struct {
    /// Stable word for programs, such as `quantity-not-positive`.
    code: []const u8,
    /// Short text for people, the same for each order.
    title: []const u8,
    /// What is wrong with this one.
    detail: ?[]const u8 = null,
    /// JSON Pointer (RFC 6901) to the member at fault.
    pointer: ?[]const u8 = null,
};

pub const RetryLater = struct {
    /// Not before this has passed.
    after_ms: u32,
    /// Why; the client sees it.
    reason: []const u8,
};

pub const Fault = struct {
    /// Stable word for programs.
    code: []const u8,
    /// What happened, for the operator.
    detail: []const u8,
    /// Whether the same order may do better at another time.
    retryable: bool = false,
};

/// One change of an order.
pub const Op = union(enum) {
    /// Creates or replaces a member, or appends to an array with `-`; `value` is JSON.
    set: struct { pointer: []const u8, value: []const u8 },
    /// Removes the member that the JSON Pointer leads to.
    remove: []const u8,
    /// Gives the order's record a header.
    header: struct { name: []const u8, value: []const u8 },
};

/// Changes of an order, applied in this sequence. All else keeps its bytes.
pub const Patch = struct {
    arena: Allocator,
    ops: std.ArrayList(Op) = .empty,

    /// Creates or replaces a member, or appends to an array with `-`; missing objects on the way are created.
    /// The value is anything that `std.json` can write.
    pub fn set(patch: *Patch, pointer: []const u8, value: anytype) Allocator.Error!void {
        try patch.setRaw(pointer, try std.json.Stringify.valueAlloc(patch.arena, value, .{}));
    }

    /// The same with a value that is JSON already; its bytes are kept.
    pub fn setRaw(patch: *Patch, pointer: []const u8, json: []const u8) Allocator.Error!void {
        try patch.ops.append(patch.arena, .{ .set = .{ .pointer = pointer, .value = json } });
    }

    /// Removes a member.
    pub fn remove(patch: *Patch, pointer: []const u8) Allocator.Error!void {
        try patch.ops.append(patch.arena, .{ .remove = pointer });
    }

    /// Gives the order's record a header.
    pub fn header(patch: *Patch, name: []const u8, value: []const u8) Allocator.Error!void {
        try patch.ops.append(patch.arena, .{ .header = .{ .name = name, .value = value } });
    }

    /// Enriches, or accepts where there is nothing to change.
    pub fn verdict(patch: Patch) Verdict {
        return if (patch.ops.items.len == 0) .accept else .{ .enrich = patch.ops.items };
    }
};
