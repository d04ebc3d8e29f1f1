--- A plugin's own metrics, at /metrics beside the program's.
--
--     local unknown = metrics.counter("teams_unknown_total", "Calls of teams that nobody knows.", { "route" })
--     unknown:add(1, { route = event.route })
--
-- becomes llm_proxy_plugin_teams_unknown_total{pipeline="…",route="…"}. Declare them in `new`. Counts outlive a reload; plugins and pipelines that declare the same metric share it, each pipeline
-- with its own label.
-- Labels are for what has few values: a metric takes 500 combinations of them in each pipeline, what comes after these counts under "other", which is logged once. Values are cut after 128 bytes.
-- All metrics of a pipeline's plugins together have 10,000 combinations: to declare one more raises, and what comes with new labels is not counted.
local log = require "llmproxy.log"
local series = require "llmproxy.metrics.series"
local text = require "llmproxy.text"

local metrics = {}

local MOST_SERIES = 500
local LONGEST_VALUE = 128
local DEFAULT_BUCKETS = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300 }

---@class llmproxy.metric
---@field private kind "counter"|"gauge"|"histogram"
---@field private name string
---@field private help string
---@field private labels string[]
---@field private bounds number[]?
---@field private known table<string, userdata>
---@field private count integer
local methods = {}
methods.__index = methods

local function fail(what, message, ...)
  error(("llmproxy.metrics.%s: %s"):format(what, message:format(...)), 4)
end

local function check_labels(kind, labels)
  if labels == nil then return {} end
  if type(labels) ~= "table" then fail(kind, "label_names: expected a list of names, got %s", type(labels)) end
  local seen = {}
  for _, name in ipairs(labels) do
    if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") then fail(kind, "label_names: expected names of letters, digits and _, got %s", tostring(name)) end
    if name == "pipeline" or name == "le" or name:find("^__") or seen[name] then fail(kind, "label_names: '%s' cannot be used", name) end
    seen[name] = true
  end
  return labels
end

local function check_buckets(buckets)
  if type(buckets) ~= "table" or not buckets[1] then fail("histogram", "buckets: expected a list of upper bounds") end
  for index, bound in ipairs(buckets) do
    if type(bound) ~= "number" or bound ~= bound or math.abs(bound) == math.huge or index > 1 and bound <= buckets[index - 1] then
      fail("histogram", "buckets: expected numbers in ascending order")
    end
  end
  return buckets
end

local function tell(self, message)
  if not self.told then log.warn(message, { metric = self.name }) end
  self.told = true
end

-- All values as labels of the series, in the order of their declaration; "other" when there are too many.
local function find(self, values)
  local labels, parts = {}, {}
  for index, name in ipairs(self.labels) do
    local value = values and values[name]
    value = value == nil and "" or text.truncate(tostring(value), LONGEST_VALUE)
    labels[#labels + 1], labels[#labels + 2] = name, value
    parts[index] = value
  end
  local key = table.concat(parts, "\0")
  local found = self.known[key]
  if found then return found end
  local made, message
  if self.count < MOST_SERIES then made, message = series.find(self.kind, self.name, self.help, labels, self.bounds) end
  if not made and not message then
    tell(self, "a metric has too many combinations of labels: the rest counts as \"other\"")
    for index = 2, #labels, 2 do labels[index] = "other" end
    key = "\0other"
    if self.known[key] then return self.known[key] end
    made, message = series.find(self.kind, self.name, self.help, labels, self.bounds, true)
  end
  if not made or message and not values then error(("llmproxy.metrics.%s: %s"):format(self.kind, message), 4) end
  if message then tell(self, "a metric does not count what has new labels: the pipeline's plugins have too many") end -- no reason to lose an event
  self.known[key], self.count = made, self.count + 1
  return made
end

local function declare(kind, name, help, labels, bounds)
  if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") or #name > 100 then fail(kind, "name: expected a name of letters, digits and _, got %s", tostring(name)) end
  if type(help) ~= "string" then fail(kind, "help: expected a string, got %s", type(help)) end
  local metric = setmetatable({ kind = kind, name = "llm_proxy_plugin_" .. name, help = help, labels = check_labels(kind, labels), bounds = bounds, known = {}, count = 0 }, methods)
  if not metric.labels[1] then find(metric, nil) end -- there from the beginning, as 0
  return metric
end

local function check_values(self, what, number, values)
  if type(number) ~= "number" or number ~= number or math.abs(number) == math.huge then
    error(("llmproxy.metrics: %s: expected a number, got %s"):format(what, type(number) == "number" and tostring(number) or type(number)), 3)
  end
  if values ~= nil and type(values) ~= "table" then error(("llmproxy.metrics: labels: expected a table, got %s"):format(type(values)), 3) end
  for name in pairs(values or {}) do
    local known = false
    for _, label in ipairs(self.labels) do known = known or label == name end
    if not known then error(("llmproxy.metrics: labels: %s has no label '%s'"):format(self.name, tostring(name)), 3) end
  end
end

local function expect_kind(self, action, ...)
  for _, kind in ipairs { ... } do
    if self.kind == kind then return end
  end
  error(("llmproxy.metrics: a %s has no '%s'"):format(self.kind, action), 3)
end

--- Something that is only ever added to. By custom its name ends in `_total`.
---@param name string letters, digits and _; the plugin's name is a good beginning
---@param help string one sentence
---@param label_names? string[]
---@return llmproxy.metric
function metrics.counter(name, help, label_names)
  return declare("counter", name, help, label_names)
end

--- Something that goes up and down.
---@param name string
---@param help string
---@param label_names? string[]
---@return llmproxy.metric
function metrics.gauge(name, help, label_names)
  return declare("gauge", name, help, label_names)
end

--- How values are distributed. By custom its name ends in its unit, as `_seconds`.
---@param name string
---@param help string
---@param label_names? string[]
---@param buckets? number[] upper bounds, ascending; from 0.005 to 300 if not given
---@return llmproxy.metric
function metrics.histogram(name, help, label_names, buckets)
  return declare("histogram", name, help, label_names, check_buckets(buckets or DEFAULT_BUCKETS))
end

--- Adds to a counter (0 or more) or gauge.
---@param number? number 1 if not given
---@param labels? table<string, any> values by name; one that is absent is ""
function methods:add(number, labels)
  expect_kind(self, "add", "counter", "gauge")
  if number == nil then number = 1 end
  check_values(self, "number", number, labels)
  if self.kind == "counter" and number < 0 then error("llmproxy.metrics: number: expected 0 or more for a counter, got " .. tostring(number), 2) end
  series.add(find(self, labels or {}), number)
end

--- Sets a gauge.
---@param number number
---@param labels? table<string, any>
function methods:set(number, labels)
  expect_kind(self, "set", "gauge")
  check_values(self, "number", number, labels)
  series.set(find(self, labels or {}), number)
end

--- Counts a value in a histogram.
---@param number number
---@param labels? table<string, any>
function methods:observe(number, labels)
  expect_kind(self, "observe", "histogram")
  check_values(self, "number", number, labels)
  series.observe(find(self, labels or {}), number)
end

return metrics
