--- What secrets and personal data look like: the patterns that are built in, and those of settings.
--
-- Each is a name and a search, which reports the places in a text. A search is linear in the text: expressions are bounded, and what an expression cannot say (a sum of digits) is looked at
-- for each place it found.
local regex = require "llmproxy.regex"

local patterns = {}

---@class llmproxy.redact.pattern
---@field name string
---@field search fun(text: string, report: fun(first: integer, last: integer))
---@field normal fun(value: string): string values that mean the same become equal

local function compile(pattern, options)
  return assert(regex.compile(pattern, options))
end

local function same(value) return value end

-- Searches the whole text.
local function searching(expression, accepts)
  return function(text, report)
    local places = expression:matches(text)
    for index = 1, #places, 2 do
      if not accepts or accepts(text:sub(places[index], places[index + 1])) then report(places[index], places[index + 1]) end
    end
  end
end

local function digits_of(value) return (value:gsub("%D", "")) end

-- E-mail --------------------------------------------------------------------------------------------------------------------------------------------------------------------

-- Only around each "@", as far as an address reaches: a long word without one costs nothing.
local BEFORE_AT, AFTER_AT = 300, 300

local function email()
  local expression = compile([[
    [\p{Latin}\p{Greek}\p{Cyrillic}\p{N}._%+-]{1,64}
    @ (?:[\p{L}\p{N}](?:[\p{L}\p{N}_-]{0,61}[\p{L}\p{N}])?\.){1,10}
    (?:xn--[a-z0-9-]{2,59}|[A-Za-z]{2,24}|[\p{Greek}\p{Cyrillic}]{2,12}) ]], { extended = true, longest = 1024 })
  return function(text, report)
    local at = text:find("@", 1, true)
    local done = 0
    while at do
      local first, last = math.max(at - BEFORE_AT, done + 1), at
      while at and at <= last + BEFORE_AT do
        last = at
        at = text:find("@", at + 1, true)
      end
      local places = expression:matches(text, first, math.min(last + AFTER_AT, #text))
      for index = 1, #places, 2 do
        report(places[index], places[index + 1])
        done = places[index + 1]
      end
    end
  end
end

-- Cards ---------------------------------------------------------------------------------------------------------------------------------------------------------------------

local DOUBLED = { [0] = 0, 2, 4, 6, 8, 1, 3, 5, 7, 9 }

local function has_luhn_sum(digits)
  local sum, size = 0, #digits
  for index = size, 1, -1 do
    local digit = digits:byte(index) - 48
    sum = sum + ((size - index) % 2 == 1 and DOUBLED[digit] or digit)
  end
  return sum % 10 == 0
end

-- 13 to 19 digits in one piece or in the groups that are printed on cards. What fails the sum may have begun with something else: "2024 4111 1111 1111 1111".
local function card()
  local expression = compile([[
    (?<![0-9A-Za-z])
    (?: [2-6][0-9]{12,18}
      | [2-6][0-9]{3} (?: [\ .\x{a0}\x{2009}\x{202f}\x{2010}-\x{2014}-] [0-9]{4} ){3} (?: [\ .\x{a0}\x{2009}\x{202f}\x{2010}-\x{2014}-] [0-9]{1,3} (?![0-9A-Za-z]) )?
      | 3[0-9]{3} [\ .\x{a0}\x{2009}\x{202f}\x{2010}-\x{2014}-] [0-9]{6} [\ .\x{a0}\x{2009}\x{202f}\x{2010}-\x{2014}-] [0-9]{4,5}
      | [2-6][0-9]{7} [\ .-] [0-9]{8} )
    (?![0-9A-Za-z]) ]], { extended = true, longest = 512 })
  local last_group = compile "[^0-9]+[0-9]{1,3}$"
  local longest = 80

  -- The end of the card that begins there; nil: none does.
  local function card_end(text, first, last)
    local value = text:sub(first, last)
    if has_luhn_sum(digits_of(value)) then return last end
    local group = #digits_of(value) > 16 and last_group:find(value)
    if group and has_luhn_sum(digits_of(value:sub(1, group - 1))) then return first + group - 2 end
  end

  return function(text, report)
    local places = expression:matches(text)
    for index = 1, #places, 2 do
      local first, last = places[index], places[index + 1]
      local reach = last
      while first and first <= reach do
        local found = card_end(text, first, last)
        if found then
          report(first, found)
          break
        end
        first, last = expression:find(text, first + 1, math.min(first + longest, #text))
      end
    end
  end
end

-- Phones --------------------------------------------------------------------------------------------------------------------------------------------------------------------

-- +49 30 1234567, 0049 30 1234567; (212) 555-0123, 212-555-0123; 030 1234567, 06 12 34 56 78. National numbers only with a separator, and no dates.
local function phone()
  local expression = compile([[
      (?<![0-9A-Za-z+]) (?: \+ [1-9] | 00 [1-9][0-9]{0,2} [\ /().-] ) (?: [\ ()./\x{a0}\x{2010}-\x{2014}-]{0,3} [0-9] ){6,14} (?![0-9])
    | (?<![\w.:/+-]) (?: 1 [\ .-] )? (?: \( [2-9][0-9]{2} \) \ ? | [2-9][0-9]{2} [\ .-] ) [2-9][0-9]{2} [\ .-] [0-9]{4} (?![\w-])
    | (?<![\w.,:+/-]) (?! [0-9]{2} [/.-] [0-9]{2} [/.-] [0-9]{2} ) (?: \( 0[1-9][0-9]{0,4} \) | 0[1-9][0-9]{0,4} ) [\ /-] [0-9]{2,8} (?: [\ -] [0-9]{2,8} ){0,4} (?![\w:]) ]],
    { extended = true, longest = 512 })
  return searching(expression, function(value)
    local count = #digits_of(value)
    return count >= (value:find "^%+" and 7 or 9) and count <= 17
  end)
end

-- Keys ----------------------------------------------------------------------------------------------------------------------------------------------------------------------

local KEYS = {
  "sk-(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{20,300}", -- OpenAI (sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek, Moonshot, Langfuse (sk-lf-)
  "AIza[A-Za-z0-9_-]{35}", "AQ\\.[A-Za-z0-9_-]{40,300}", "ya29\\.[A-Za-z0-9_-]{20,2000}", -- Google
  "(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", "ABSK[A-Za-z0-9+/=]{100,300}", "bedrock-api-key-[A-Za-z0-9+/=]{20,2000}", -- AWS
  "gh[pousr]_[A-Za-z0-9]{36,255}", "github_pat_[A-Za-z0-9_]{22,255}", "glpat-[A-Za-z0-9_-]{20,64}", -- GitHub, GitLab
  "xox[abeoprs]-[A-Za-z0-9-]{10,255}", "xapp-[A-Za-z0-9-]{10,255}", -- Slack
  "hf_[A-Za-z0-9]{30,64}", "gsk_[A-Za-z0-9]{40,128}", "xai-[A-Za-z0-9]{40,128}", "pplx-[A-Za-z0-9]{32,128}", -- Hugging Face, Groq, xAI, Perplexity
  "r8_[A-Za-z0-9]{32,64}", "nvapi-[A-Za-z0-9_-]{40,128}", "csk-[a-z0-9]{40,128}", "fw_[A-Za-z0-9]{20,64}", "tgp_v1_[A-Za-z0-9_-]{30,128}", -- Replicate, NVIDIA, Cerebras, Fireworks, Together
  "dapi[a-f0-9]{32}(?:-[0-9])?", "jina_[A-Za-z0-9]{40,128}", "tvly-[A-Za-z0-9-]{20,64}", "lsv2_[a-z]{2}_[a-f0-9]{32}_[a-f0-9]{10}", -- Databricks, Jina, Tavily, LangSmith
  "[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}", "whsec_[A-Za-z0-9+/=]{24,128}", -- Stripe, Standard Webhooks
  "eyJ[A-Za-z0-9_-]{8,}+\\.eyJ[A-Za-z0-9_-]{8,}+\\.[A-Za-z0-9_-]*+", -- JSON web tokens
}

-- A private key's lines, also where "\n" is written out, and without its end.
local BREAK = "(?:\\s|\\\\[nr])"
local PRIVATE_KEY = "-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?:" .. BREAK .. "{1,8}+[A-Za-z0-9-]{1,32}: [^\\n\\\\]{0,200})*+(?:" .. BREAK .. "{0,8}+[A-Za-z0-9+/=]{16,}+)*+"
  .. "(?:(?:" .. BREAK .. "{0,8}[A-Za-z0-9+/=]{1,15})?" .. BREAK .. "{0,8}+-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|" .. BREAK .. "{1,8}[A-Za-z0-9+/=]{1,15}\\z)?"

local function api_key()
  return searching(compile("(?<![A-Za-z0-9])(?:" .. table.concat(KEYS, "|") .. ")|" .. PRIVATE_KEY, { longest = 32768 }))
end

local BUILT_IN = {
  email = { make = email, normal = string.lower },
  phone = { make = phone, normal = digits_of },
  card = { make = card, normal = digits_of },
  api_key = { make = api_key, normal = same },
}

--- The names of those that are built in.
patterns.names = { "api_key", "card", "email", "phone" }

--- What is wrong with an expression of settings; nil: nothing.
---@param expression string
---@return string?
function patterns.problem(expression)
  local _, message = regex.compile(expression)
  return message
end

--- Makes a pattern: from the name of one that is built in, or from { name, pattern, ignore_case }.
---@param wanted string|{ name: string, pattern: string, ignore_case: boolean? }
---@return llmproxy.redact.pattern
function patterns.new(wanted)
  if type(wanted) == "table" then
    return { name = wanted.name, search = searching(compile(wanted.pattern, { ignore_case = wanted.ignore_case })), normal = same }
  end
  local known = BUILT_IN[wanted]
  return { name = wanted, search = known.make(), normal = known.normal }
end

return patterns
