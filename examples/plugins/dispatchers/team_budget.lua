--- What each team has spent this month, in a file that is rewritten as calls come in, and a warning in the log when a budget is used up.
--
-- Needs the transforms `llm` and `cost` before it, and `enrich` for the team: { "enrich", headers = { team = "x-team" } }. The file is read again after a restart. An event that comes twice
-- counts once, as long as its id is among the last ones seen.
local file = require "llmproxy.file"
local json = require "llmproxy.json"
local log = require "llmproxy.log"
local lru = require "llmproxy.lru"
local verdict = require "llmproxy.verdict"

return {
  kind = "dispatcher",
  api = 1,
  summary = "Keeps a report of what each team has spent this month.",
  settings = {
    path = { type = "path", required = true, doc = "the report, a JSON file" },
    budgets = { type = "map", items = { type = "number", min = 0 }, default = {}, doc = "a month's budget by team" },
  },
  batch = { max_wait = 5 },
  new = function(settings)
    local report
    local seen = lru.new { max = 100000 }

    local function load()
      local text = file.read(settings.path) -- nil when there is none yet
      return text and json.decode(text) or { months = {} }
    end

    local function add(event)
      local month, team = event.time:sub(1, 7), event.team or "unknown"
      local teams = report.months[month] or {}
      local entry = teams[team] or { calls = 0, tokens = 0, cost = 0 }
      report.months[month], teams[team] = teams, entry
      local before, budget = entry.cost, settings.budgets[team]
      entry.calls = entry.calls + 1
      entry.tokens = entry.tokens + (event.llm and event.llm.usage and event.llm.usage.total_tokens or 0)
      entry.cost = entry.cost + (event.cost and event.cost.total or 0)
      if budget and before < budget and entry.cost >= budget then
        log.warn("a team has used up its budget", { team = team, month = month, budget = budget, cost = entry.cost })
      end
    end

    return {
      deliver = function(_, batch)
        report = report or load()
        for _, event in ipairs(batch.events) do
          if not seen:get(event.id) then
            seen:set(event.id, true)
            add(event)
          end
        end
        local written, message = file.replace(settings.path, json.encode(report) .. "\n")
        if not written then return verdict.retry { reason = message } end
        return verdict.ok()
      end,
    }
  end,
}
