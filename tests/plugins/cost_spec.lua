local function cost(t, settings, llm)
  local event = t.plugin("transforms/cost", settings) { id = "1", llm = llm }
  return event.cost
end

local ROWS = {
  { model = "small*", provider = "openai", input = 1, cached_input = 0.5, cache_write = 2, output = 4 },
  { model = "small*", input = 10, output = 40 },
  { model = "long", input = 1, output = 2, long = { above = 1000, input = 3, output = 5 } },
  { model = "embedding", input = 7 },
}

local function llm(model, usage, more)
  local made = { provider = "openai", request_model = model, usage = usage }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

return {
  ["cached and written tokens have prices of their own"] = function(t)
    local usage = { input_tokens = 1000, output_tokens = 100, cached_input_tokens = 300, cache_write_tokens = 200 }
    t.equal(cost(t, { prices = ROWS }, llm("small-1", usage)),
      { total = 0.00145, input = 0.00105, output = 0.0004, currency = "USD", model = "small*" })
    t.equal(cost(t, { prices = ROWS, currency = "EUR" }, llm("small-1", usage, { provider = "other" })),
      { total = 0.014, input = 0.01, output = 0.004, currency = "EUR", model = "small*" })
  end,

  ["money has no endless decimals"] = function(t)
    t.equal(cost(t, { prices = { { model = "*", input = 0.15, output = 0.6 } } }, llm("m", { input_tokens = 12, output_tokens = 7 })).total, 6e-06)
  end,

  ["a long prompt makes all of it dearer"] = function(t)
    t.equal(cost(t, { prices = ROWS }, llm("long", { input_tokens = 1000, output_tokens = 1000 })).total, 0.003)
    t.equal(cost(t, { prices = ROWS }, llm("long", { input_tokens = 1001, output_tokens = 1000 })).total, 0.008003)
  end,

  ["the model that answered counts, then the one that was asked, in any case"] = function(t)
    local usage = { input_tokens = 1000000 }
    t.equal(cost(t, { prices = ROWS }, llm("alias", usage, { response_model = "Embedding" })).total, 7)
    t.equal(cost(t, { prices = ROWS }, llm("embedding", usage, { response_model = "deployment-1" })).total, 7)
  end,

  ["without usage or a price there is no cost"] = function(t)
    t.equal(cost(t, { prices = ROWS }, llm("small")), nil)
    t.equal(cost(t, { prices = ROWS }, llm("small", { source = "provider" })), nil)
    t.equal(cost(t, { prices = ROWS }, llm("unheard-of", { input_tokens = 1 })), nil)
    t.equal(cost(t, { prices = ROWS }, llm(("small"):rep(100), { input_tokens = 1 })), nil)
    t.equal(cost(t, { prices = ROWS }, nil), nil)
  end,

  ["the stock table has prices for what is in use"] = function(t)
    local usage = { input_tokens = 1000000, output_tokens = 1000000 }
    for model, total in pairs {
      ["gpt-4o-mini-2024-07-18"] = 0.75, ["gpt-4o-2024-08-06"] = 12.5, ["gpt-5-mini"] = 2.25, ["o3-2025-04-16"] = 10,
      ["claude-opus-4-5-20251101"] = 30, ["claude-sonnet-4-5"] = 28.5, ["anthropic.claude-3-haiku-20240307-v1:0"] = 1.5, ["gemini-2.5-pro"] = 17.5,
    } do t.equal((cost(t, {}, llm(model, usage)) or {}).total, total, model) end
  end,

  ["a table of prices is checked"] = function(t)
    t.equal(t.settings_errors("transforms/cost", { prices = { { model = "x", input = "1" } } }), { 'prices[1].input: expected a number of at least 0, got "1"' })
    t.equal(t.settings_errors("transforms/cost", { prices = { { model = "x", input = 1, inputs = 1 } } }), { "prices[1].inputs: unknown key, did you mean 'input'?" })
  end,
}
