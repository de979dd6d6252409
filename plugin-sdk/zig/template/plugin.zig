//! Refuses orders with too many lines and counts the lines of the others.

const std = @import("std");
const sluice = @import("sluice");

pub const Plugin = struct {
    lines_max: usize,

    /// Called once, before all else. Keep it cheap: an instance lives for one batch of orders.
    pub fn configure(setup: *sluice.Setup) !Plugin {
        const member = setup.config.get("lines_max") orelse sluice.Value.init("100");
        const lines_max = member.integer(usize) orelse return setup.refuse(.{
            .code = "invalid-configuration",
            .title = "Invalid configuration",
            .detail = "lines_max is not a whole number from 0",
            .pointer = "/lines_max",
        });
        return .{ .lines_max = lines_max };
    }

    /// Judges one order. An error becomes a fault: the order is held, and nothing is lost.
    pub fn judge(plugin: *const Plugin, order: *sluice.Order) !sluice.Verdict {
        const lines = order.body.get("lines") orelse sluice.Value.init("null");
        if (lines.kind() != .array) return refused(order, .{
            .code = "lines-missing",
            .title = "The order has no lines",
            .pointer = "/lines",
        });
        const count = lines.count();
        if (count > plugin.lines_max) return refused(order, .{
            .code = "too-many-lines",
            .title = "The order has too many lines",
            .detail = try order.print("{d} lines, at most {d} are allowed", .{ count, plugin.lines_max }),
            .pointer = "/lines",
        });
        var patch = order.patch();
        try patch.set("/lineCount", count);
        return patch.verdict();
    }
};

fn refused(order: *sluice.Order, problem: sluice.Problem) !sluice.Verdict {
    sluice.log.info("order {s}: {s}", .{ order.id, problem.code });
    return .{ .reject = try order.arena.dupe(sluice.Problem, &.{problem}) };
}

test "the lines are counted" {
    const outcome = try sluice.testing.judge(Plugin, "{\"lines_max\":2}", "{\"lines\":[1,2]}");
    defer outcome.deinit();
    try outcome.expect(
        \\{"seq":0,"verdict":"enrich","patch":[{"set":"/lineCount","value":2}]}
    );
}

test "one line too many is refused" {
    const outcome = try sluice.testing.judge(Plugin, "{\"lines_max\":2}", "{\"lines\":[1,2,3]}");
    defer outcome.deinit();
    try std.testing.expect(outcome.outcome.pointer("/problems/0/code").?.is("too-many-lines"));
}

test "a limit that is no number is refused" {
    const problems =
        \\[{"code":"invalid-configuration","title":"Invalid configuration",
    ++
        \\"detail":"lines_max is not a whole number from 0","pointer":"/lines_max"}]
    ;
    try sluice.testing.expectRefused(Plugin, "{\"lines_max\":\"many\"}", problems);
}
