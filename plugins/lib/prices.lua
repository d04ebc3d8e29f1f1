--- Prices of models in USD for a million tokens, for the transform `cost`; the first row that fits counts.
--
-- Providers change their prices: these are what they published at the end of 2025, for ordinary processing without discounts. Put your own table as lib/prices.lua into a plugin folder
-- of yours; the form is told in transforms/cost.lua.
return {
  -- OpenAI
  { model = "gpt-5-mini*", input = 0.25, cached_input = 0.025, output = 2 },
  { model = "gpt-5-nano*", input = 0.05, cached_input = 0.005, output = 0.4 },
  { model = "gpt-5*", input = 1.25, cached_input = 0.125, output = 10 },
  { model = "gpt-4.1-mini*", input = 0.4, cached_input = 0.1, output = 1.6 },
  { model = "gpt-4.1-nano*", input = 0.1, cached_input = 0.025, output = 0.4 },
  { model = "gpt-4.1*", input = 2, cached_input = 0.5, output = 8 },
  { model = "gpt-4o-mini*", input = 0.15, cached_input = 0.075, output = 0.6 },
  { model = "gpt-4o*", input = 2.5, cached_input = 1.25, output = 10 },
  { model = "gpt-4-turbo*", input = 10, output = 30 },
  { model = "gpt-3.5-turbo*", input = 0.5, output = 1.5 },
  { model = "o4-mini*", input = 1.1, cached_input = 0.275, output = 4.4 },
  { model = "o3-mini*", input = 1.1, cached_input = 0.55, output = 4.4 },
  { model = "o3", input = 2, cached_input = 0.5, output = 8 },
  { model = "o3-2*", input = 2, cached_input = 0.5, output = 8 },
  { model = "o1", input = 15, cached_input = 7.5, output = 60 },
  { model = "o1-2*", input = 15, cached_input = 7.5, output = 60 },
  { model = "text-embedding-3-small", input = 0.02 },
  { model = "text-embedding-3-large", input = 0.13 },
  { model = "text-embedding-ada-002", input = 0.1 },

  -- Anthropic; also as "anthropic.claude-…" and "anthropic/claude-…" elsewhere. Written tokens: for the cache of five minutes.
  { model = "*claude-opus-4-5*", input = 5, cached_input = 0.5, cache_write = 6.25, output = 25 },
  { model = "*claude-opus-4*", input = 15, cached_input = 1.5, cache_write = 18.75, output = 75 },
  { model = "*claude-sonnet-4*", input = 3, cached_input = 0.3, cache_write = 3.75, output = 15, long = { above = 200000, input = 6, cached_input = 0.6, cache_write = 7.5, output = 22.5 } },
  { model = "*claude-haiku-4-5*", input = 1, cached_input = 0.1, cache_write = 1.25, output = 5 },
  { model = "*claude-3-7-sonnet*", input = 3, cached_input = 0.3, cache_write = 3.75, output = 15 },
  { model = "*claude-3-5-sonnet*", input = 3, cached_input = 0.3, cache_write = 3.75, output = 15 },
  { model = "*claude-3-5-haiku*", input = 0.8, cached_input = 0.08, cache_write = 1, output = 4 },
  { model = "*claude-3-haiku*", input = 0.25, cached_input = 0.03, cache_write = 0.3, output = 1.25 },

  -- Google
  { model = "gemini-2.5-pro*", input = 1.25, cached_input = 0.125, output = 10, long = { above = 200000, input = 2.5, cached_input = 0.25, output = 15 } },
  { model = "gemini-2.5-flash-lite*", input = 0.1, cached_input = 0.01, output = 0.4 },
  { model = "gemini-2.5-flash*", input = 0.3, cached_input = 0.03, output = 2.5 },
  { model = "gemini-2.0-flash-lite*", input = 0.075, output = 0.3 },
  { model = "gemini-2.0-flash*", input = 0.1, cached_input = 0.025, output = 0.4 },

  -- Mistral
  { model = "mistral-large*", provider = "mistral", input = 2, output = 6 },
  { model = "mistral-medium*", provider = "mistral", input = 0.4, output = 2 },
  { model = "mistral-small*", provider = "mistral", input = 0.1, output = 0.3 },
}
