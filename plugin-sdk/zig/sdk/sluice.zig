//! Plugins for Sluice in Zig.
//!
//! A plugin is a file `plugin.zig` with a type `Plugin` that has two functions:
//!
//!     pub fn configure(setup: *sluice.Setup) !Plugin
//!     pub fn judge(plugin: *const Plugin, order: *sluice.Order) !sluice.Verdict

const std = @import("std");
const Allocator = std.mem.Allocator;
const json = @import("json.zig");
const answers = @import("answer.zig");
const verdicts = @import("verdict.zig");
const logs = @import("log.zig");

pub const Value = json.Value;
pub const Member = json.Member;
pub const Verdict = verdicts.Verdict;
pub const Problem = verdicts.Problem;
pub const RetryLater = verdicts.RetryLater;
pub const Fault = verdicts.Fault;
pub const Op = verdicts.Op;
pub const Patch = verdicts.Patch;
/// Writes to the gateway's log: `log.info("{d} lines", .{n})`. Long lines are cut, too many are dropped.
pub const log = logs;
pub const testing = @import("testing.zig");

/// What a plugin gets at its start.
pub const Setup = struct {
    /// The operator's configuration: a JSON object.
    config: Value,
    /// Memory that stays while the plugin lives.
    arena: Allocator,
    problems: std.ArrayList(Problem) = .empty,

    /// Notes what is wrong with the configuration; the plugin is not used with it. `return setup.refuse(...)`.
    pub fn refuse(setup: *Setup, problem: Problem) error{ Refused, OutOfMemory } {
        setup.problems.append(setup.arena, problem) catch return error.OutOfMemory;
        return error.Refused;
    }
};

/// An order and what is known about it.
pub const Order = struct {
    /// Id of the order.
    id: []const u8 = "",
    /// Path of the order's route, such as `/orders`.
    route: []const u8 = "",
    /// Type of the event, such as `OrderCreated`.
    kind: []const u8 = "",
    /// When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees.
    received: []const u8 = "",
    /// Counts the judgements of this order, from 1.
    attempt: u32 = 1,
    /// More names and values, such as `traceparent`: an object with strings.
    attrs: Value = .init("{}"),
    /// The order: a JSON object, as patched by the plugins before this one.
    body: Value = .init("{}"),
    /// Memory that is given back when the order has been judged.
    arena: Allocator,

    /// The value of one of the `attrs`.
    pub fn attr(order: *const Order, name: []const u8) Allocator.Error!?[]const u8 {
        const value = order.attrs.get(name) orelse return null;
        return value.string(order.arena);
    }

    /// Changes of this order, none so far.
    pub fn patch(order: *const Order) Patch {
        return .{ .arena = order.arena };
    }

    /// A text in the order's memory.
    pub fn print(order: *const Order, comptime format: []const u8, values: anytype) Allocator.Error![]u8 {
        return std.fmt.allocPrint(order.arena, format, values);
    }

    /// A JSON string of a text, with its quotes.
    pub fn quoted(order: *const Order, text: []const u8) Allocator.Error![]u8 {
        var out: std.ArrayList(u8) = .empty;
        try answers.quote(&out, order.arena, text);
        return out.items;
    }
};

/// Judges a document of the gateway's and gives back the document that answers it.
pub fn process(comptime Plugin: type, gpa: Allocator, document: []const u8) Allocator.Error![]u8 {
    var config: Value = .init("{}");
    // The document is walked through once, with the events as its last member.
    var scan: json.Scan = .{ .text = document };
    while (scan.more()) {
        const name = scan.name();
        if (name.is("events")) break;
        const part = scan.value();
        if (name.is("config")) config = part;
    }

    var kept: std.heap.ArenaAllocator = .init(gpa);
    defer kept.deinit();
    var scratch: std.heap.ArenaAllocator = .init(gpa);
    defer scratch.deinit();
    var answer: answers.Answer = .{ .gpa = gpa };
    errdefer answer.text.deinit(gpa);

    var setup: Setup = .{ .config = config, .arena = kept.allocator() };
    const plugin = Plugin.configure(&setup) catch |reason| {
        if (setup.problems.items.len == 0) {
            const invalid = "Invalid configuration";
            setup.refuse(.{ .code = "invalid-configuration", .title = invalid, .detail = @errorName(reason) }) catch {};
        }
        try answer.put("{\"refused\":");
        try answer.problems(setup.problems.items);
        try answer.put("}");
        return answer.text.toOwnedSlice(gpa);
    };

    try answer.put("{\"outcomes\":[");
    var first = true;
    while (scan.more()) {
        if (!first) try answer.put(",");
        first = false;
        var order: Order = .{ .arena = scratch.allocator() };
        const seq = try read(&order, &scan);
        const verdict = Plugin.judge(&plugin, &order) catch |reason| Verdict{
            .fault = .{ .code = "error", .detail = @errorName(reason), .retryable = reason == error.OutOfMemory },
        };
        try answer.outcome(seq, verdict);
        _ = scratch.reset(.retain_capacity);
    }
    try answer.put("]}");
    return answer.text.toOwnedSlice(gpa);
}

/// Fills in an order from the event that comes next, and gives back its number in the batch.
fn read(order: *Order, scan: *json.Scan) Allocator.Error![]const u8 {
    var seq: []const u8 = "0";
    while (scan.more()) {
        const name = scan.name();
        const part = scan.value();
        if (name.is("seq")) seq = part.raw;
        if (name.is("id")) order.id = try plain(order, part);
        if (name.is("route")) order.route = try plain(order, part);
        if (name.is("kind")) order.kind = try plain(order, part);
        if (name.is("received")) order.received = try plain(order, part);
        if (name.is("attempt")) order.attempt = part.integer(u32) orelse 1;
        if (name.is("attrs")) order.attrs = part;
        if (name.is("order")) order.body = part;
    }
    scan.at += 1; // the brace
    return seq;
}

fn plain(order: *const Order, value: Value) Allocator.Error![]const u8 {
    return try value.string(order.arena) orelse "";
}

test {
    std.testing.refAllDecls(@This());
}
