//! Writes the document that a plugin answers with.

const std = @import("std");
const Allocator = std.mem.Allocator;
const verdicts = @import("verdict.zig");

pub const Answer = struct {
    gpa: Allocator,
    text: std.ArrayList(u8) = .empty,

    pub fn outcome(answer: *Answer, seq: []const u8, verdict: verdicts.Verdict) Allocator.Error!void {
        try answer.put("{\"seq\":");
        try answer.put(seq);
        switch (verdict) {
            .accept => try answer.put(",\"verdict\":\"accept\"}"),
            .enrich => |ops| {
                try answer.put(",\"verdict\":\"enrich\",\"patch\":[");
                for (ops, 0..) |op, i| {
                    if (i > 0) try answer.put(",");
                    try answer.change(op);
                }
                try answer.put("]}");
            },
            .reject => |all| {
                try answer.put(",\"verdict\":\"reject\",\"problems\":");
                try answer.problems(all);
                try answer.put("}");
            },
            .retry_later => |retry| {
                var digits: [10]u8 = undefined;
                try answer.put(",\"verdict\":\"retry-later\",\"afterMs\":");
                try answer.put(std.fmt.bufPrint(&digits, "{d}", .{retry.after_ms}) catch unreachable);
                try answer.member("reason", retry.reason);
                try answer.put("}");
            },
            .fault => |fault| {
                try answer.put(",\"verdict\":\"fault\"");
                try answer.member("code", fault.code);
                try answer.member("detail", fault.detail);
                try answer.put(if (fault.retryable) ",\"retryable\":true}" else ",\"retryable\":false}");
            },
        }
    }

    pub fn problems(answer: *Answer, all: []const verdicts.Problem) Allocator.Error!void {
        try answer.put("[");
        for (all, 0..) |problem, i| {
            try answer.put(if (i > 0) ",{\"code\":" else "{\"code\":");
            try answer.string(problem.code);
            try answer.member("title", problem.title);
            if (problem.detail) |detail| try answer.member("detail", detail);
            if (problem.pointer) |pointer| try answer.member("pointer", pointer);
            try answer.put("}");
        }
        try answer.put("]");
    }

    fn change(answer: *Answer, op: verdicts.Op) Allocator.Error!void {
        switch (op) {
            .set => |set| {
                try answer.put("{\"set\":");
                try answer.string(set.pointer);
                try answer.put(",\"value\":");
                try answer.put(set.value);
            },
            .remove => |pointer| {
                try answer.put("{\"remove\":");
                try answer.string(pointer);
            },
            .header => |header| {
                try answer.put("{\"header\":");
                try answer.string(header.name);
                try answer.member("value", header.value);
            },
        }
        try answer.put("}");
    }

    fn member(answer: *Answer, comptime name: []const u8, text: []const u8) Allocator.Error!void {
        try answer.put(",\"" ++ name ++ "\":");
        try answer.string(text);
    }

    fn string(answer: *Answer, text: []const u8) Allocator.Error!void {
        try quote(&answer.text, answer.gpa, text);
    }

    pub fn put(answer: *Answer, text: []const u8) Allocator.Error!void {
        try answer.text.appendSlice(answer.gpa, text);
    }
};

/// Writes a text as a JSON string: escapes for quotes, backslashes and control characters, all else as it is.
pub fn quote(out: *std.ArrayList(u8), gpa: Allocator, text: []const u8) Allocator.Error!void {
    try out.append(gpa, '"');
    var start: usize = 0;
    for (text, 0..) |c, i| {
        if (c >= 0x20 and c != '"' and c != '\\') continue;
        try out.appendSlice(gpa, text[start..i]);
        start = i + 1;
        if (c >= 0x20) {
            try out.appendSlice(gpa, &.{ '\\', c });
        } else {
            const hex = "0123456789abcdef";
            try out.appendSlice(gpa, &.{ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] });
        }
    }
    try out.appendSlice(gpa, text[start..]);
    try out.append(gpa, '"');
}
