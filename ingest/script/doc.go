// Package script runs Redis' Lua scripts within bounds.
//
// # Problem
//
// While a script runs nobody else is served: that is what makes it atomic. So
// whatever it does must end, and soon: a loop, a recursion, a string that
// doubles, a pattern that backtracks, a coroutine, a compile of a megabyte of
// brackets. Redis' own interpreter is asked between instructions whether it has
// run for too long, and nothing bounds its memory or what one instruction does.
//
// # How it works
//
// The interpreter is gopher-lua, which knows no bounds but those of its stacks.
// It asks a context before each instruction whether it is done. That context is
// a budget here (budget.go): it counts the question as a step, and looks at the
// clock, the heap and SCRIPT KILL once in a thousand. A budget that is used up
// answers yes for good, so that no pcall can go on behind it.
//
//	source ─ parse ─▶ tree ─ rewrite ─▶ tree ─ compile ─▶ Program
//	                         a..b and t[k]=v become calls, depth is bounded
//
//	Engine.Run ─▶ instruction, instruction, … ─▶ value ─▶ RESP
//	                   │                 │
//	                   └──▶ budget ◀─────┘ strings, tables, patterns, JSON
//
// What one instruction can do without end is done by functions of this package
// that take steps and bytes from the budget as they go: the string and table
// libraries, cjson, and what the interpreter would do by itself and which is
// therefore made a call when a script is compiled: the operator "..", and setting
// an element of a table, for which an array may be filled (arrays.go).
//
// # Memory
//
// Strings are counted before they are made; a step counts as stepBytes for the
// tables it may have grown. Every mebibyte of that the heap is read (not
// collected), and when it has grown by more than the bound since the script
// began, and a collection does not change that, the script ends. Others' growth
// meanwhile counts too: the bound is there to save the process, not to bill.
//
// # Sandbox
//
// What a script sees is what redis-server 7.0 shows: no files, no processes, no
// time, math.random from the same seed at each start, and no way to create a global
// or to change a library. Libraries are empty tables in front of the real ones.
//
// # What differs
//
// 3,601 scripts were compared with redis-server 7.0: each function with each type of
// argument and with none, each operator with each pair of types, what the sandbox
// hides, answers, errors, patterns, formats, JSON. Some 950 differed in texts of errors
// or in addresses alone, 28 in what they return; package ingest has transcripts of
// the kinds that are the same. What is left, all of it small enough to stay:
//
//   - Messages of the interpreter itself name no variables ("attempt to index a nil
//     value"), and not always the type (of what is called, of which the length or the
//     negative is taken): gopher-lua does not know them. An argument that is missing
//     is called nil, where Lua says "no value".
//   - load takes no binary chunks, and string.dump makes none. There is no debugger.
//   - The metatables of strings and of _G are nil, as all scripts share them.
//   - A table's __len counts, goto and its labels are known, "\999" is a byte and a
//     global arg is an empty table, as gopher-lua has it. Where a list has holes, its
//     length may be another of those that Lua permits. next ends at a key that
//     is in no table, and what was called by pcall names its own line for level 2.
//   - NaN is always printed as "-nan". What has no integer of 32 bits, for bit, or of
//     8, for string.char, is another one or refused.
//   - Commands that are not known here, such as LPUSH or DEBUG, are unknown to
//     scripts, too, where Redis runs or forbids them.
package script
