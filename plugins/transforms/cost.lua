--- What an exchange cost: its token usage times a table of prices.
--
-- The prices are a Lua table: lib/prices.lua of the first plugin folder that has one, in the end the stock one, or the setting `prices`. The first row that fits counts. A row:
--
--     { model = "gpt-4o-mini*", provider = "openai", input = 0.15, cached_input = 0.075, cache_write = 0.2, output = 0.60, long = { above = 200000, input = 0.3, output = 1.2 } }
--
-- in `currency` for a million tokens. `*` in a model stands for anything; without `provider` the row is for all. A price of cached or written tokens that is absent is that of input. Beyond
-- `long.above` input tokens the prices of `long` replace the others, for the whole exchange.
--
-- The event gets `cost = { total, input, output, currency, model }`, `model` being the row's. No usage, no cost: nothing is estimated.
local glob = require "llmproxy.glob"
local log = require "llmproxy.log"
local lru = require "llmproxy.lru"
local metrics = require "llmproxy.metrics"
local schema = require "llmproxy.settings"

local TOKENS = 1000000

local PRICE = { type = "number", min = 0 }
local LONG = {
  type = "table",
  fields = { above = { type = "integer", min = 1, required = true }, input = PRICE, cached_input = PRICE, cache_write = PRICE, output = PRICE },
}
local ROW = {
  type = "table",
  fields = {
    model = { type = "string", min = 1, required = true }, provider = { type = "string" },
    input = { type = "number", min = 0, required = true }, cached_input = PRICE, cache_write = PRICE, output = PRICE, long = LONG,
  },
}
local ROWS = { type = "list", items = ROW }

-- A model's name comes from the caller: what is longer than this is none.
local LONGEST_MODEL = 200

local function stock_rows()
  local checked, errors = schema.check({ prices = ROWS }, { prices = require "prices" })
  if errors[1] then error("lib/prices.lua: " .. table.concat(errors, "; "), 0) end
  return checked.prices
end

local function compile(rows)
  local compiled = {}
  for index, row in ipairs(rows) do
    compiled[index] = { row = row, matches = glob.compile(row.model:lower()), long = row.long and setmetatable(row.long, { __index = row }) }
  end
  return compiled
end

local function find_entry(compiled, provider, model)
  if #model > LONGEST_MODEL then return nil end
  model = model:lower()
  for _, entry in ipairs(compiled) do
    if (not entry.row.provider or entry.row.provider == provider) and entry.matches(model) then return entry end
  end
end

-- A sum of money is not longer than twelve decimals: 1.8e-06, and not 1.7999999999999999e-06.
local function rounded(value)
  return tonumber(("%.12f"):format(value))
end

local function price(entry, usage)
  local input, output = usage.input_tokens or 0, usage.output_tokens or 0
  local cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
  local prices = entry.long and input > entry.long.above and entry.long or entry.row
  local plain = math.max(input - cached - written, 0)
  local input_cost = (plain * prices.input + cached * (prices.cached_input or prices.input) + written * (prices.cache_write or prices.input)) / TOKENS
  local output_cost = output * (prices.output or 0) / TOKENS
  return rounded(input_cost), rounded(output_cost)
end

return {
  kind = "transform",
  api = 1,
  summary = "Adds what an exchange cost, from its token usage and a table of prices.",
  settings = {
    prices = {
      type = "list", items = ROW,
      doc = "rows { model, provider, input, cached_input, cache_write, output, long }, the first that fits counts; without it lib/prices.lua of the first plugin folder that has one",
    },
    currency = { type = "string", min = 1, default = "USD", doc = "what the prices are in; goes into the event" },
  },
  new = function(settings)
    local rows = compile(settings.prices or stock_rows())
    local unknown = metrics.counter("cost_unknown_models_total", "Exchanges with token usage of a model that the table of prices does not have.", { "provider", "model" })
    local reported = lru.new { max = 100 }
    local function not_priced(provider, model)
      unknown:add(1, { provider = provider or "", model = model })
      if reported:get(model) then return end
      reported:set(model, true)
      log.warn("no price for this model: add it to lib/prices.lua of a plugin folder or to the setting prices", { provider = provider, model = model })
    end
    return function(event)
      local llm = event.llm
      local usage = llm and llm.usage
      if not usage or not (usage.input_tokens or usage.output_tokens) then return event end
      local asked, answered = llm.request_model or "", llm.response_model or ""
      local entry = find_entry(rows, llm.provider, answered) or find_entry(rows, llm.provider, asked)
      if not entry then
        not_priced(llm.provider, answered ~= "" and answered or asked)
        return event
      end
      local input, output = price(entry, usage)
      event.cost = { total = rounded(input + output), input = input, output = output, currency = settings.currency, model = entry.row.model }
      return event
    end
  end,
}
