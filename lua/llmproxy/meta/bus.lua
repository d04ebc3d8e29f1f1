---@meta
--- What a bus plugin makes: events are published to it, and each pipeline subscribes to it, in this process and in others. All but `new` may wait.

---@class llmproxy.bus what `new` returns; each pipeline has one of its own, and so has what publishes
---@field publish fun(self: llmproxy.bus, batch: llmproxy.batch): llmproxy.verdict? the answers of a dispatcher's deliver
---@field subscribe fun(self: llmproxy.bus, options: llmproxy.bus.options): llmproxy.bus.subscription?, string? nil and a reason: it is tried again
---@field close? fun(self: llmproxy.bus)

---@class llmproxy.bus.options
---@field name string the pipeline's: those of one name share the work
---@field consumer string unique for this pipeline of this process
---@field from "newest"|"oldest" where a name begins that the bus does not know

--- What a pipeline fetches from. One that raises is closed, and subscribe is called again. fetch and ack may run at the same time.
---@class llmproxy.bus.subscription
---@field fetch fun(self: llmproxy.bus.subscription, max: integer, wait: number): llmproxy.bus.message[]?, string? at most max messages, waiting up to so many seconds for the first; an empty list when none came; nil and a reason when it failed
---@field ack fun(self: llmproxy.bus.subscription, messages: llmproxy.bus.message[]): boolean?, string? these very tables need not come again; nil and a reason: it is tried again
---@field release? fun(self: llmproxy.bus.subscription, messages: llmproxy.bus.message[]): boolean?, string? others may have these at once
---@field lag? fun(self: llmproxy.bus.subscription): number? how many events wait for this name
---@field close? fun(self: llmproxy.bus.subscription)

---@class llmproxy.bus.message any other keys are the plugin's own; `id` is shown in log lines
---@field event string|table one event in its canonical form: its JSON, or that decoded by llmproxy.json
