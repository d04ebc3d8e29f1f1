--- Writes usage records into SQLite through rqlite, which serves it over HTTP: one transaction for each batch.
--
-- https://rqlite.io/docs/api/: POST /db/execute takes a list of statements with their parameters, and answers with a list of results in the same order.
local http = require "llmproxy.http"
local json = require "llmproxy.json"
local verdict = require "llmproxy.verdict"

local TABLE = [[CREATE TABLE IF NOT EXISTS llm_calls (id TEXT PRIMARY KEY, time TEXT, route TEXT, model TEXT, status INTEGER,
  duration_ms REAL, input_tokens INTEGER, output_tokens INTEGER)]]
-- An event that comes again is there already.
local INSERT = "INSERT INTO llm_calls VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"

local function statement(event)
  local llm = event.llm or {}
  local usage = llm.usage or {}
  local function value(field) return field == nil and json.null or field end
  return json.array {
    INSERT, event.id, event.time, value(event.route), value(llm.response_model or llm.request_model), event.status, event.duration_ms,
    value(usage.input_tokens), value(usage.output_tokens),
  }
end

-- The verdict on each event: a statement that fails tells it in its result, with status 200.
local function judge(results)
  local rejected = {}
  for index, result in ipairs(results) do
    if result.error and index > 1 then rejected[index - 1] = result.error end
  end
  if results[1] and results[1].error then return verdict.pause(results[1].error) end
  return next(rejected) and verdict.partial { reject = rejected } or verdict.ok()
end

return {
  kind = "dispatcher",
  api = 1,
  summary = "Writes usage records into a table of rqlite (SQLite over HTTP).",
  settings = {
    url = { type = "url", default = "http://127.0.0.1:4001", doc = "where rqlite listens" },
    timeout = { type = "duration", default = "10s", min = 0.1, doc = "for one batch" },
  },
  new = function(settings)
    local url = settings.url:gsub("/+$", "") .. "/db/execute"
    return {
      deliver = function(_, batch)
        local statements = json.array { json.array { TABLE } }
        for index, event in ipairs(batch.events) do statements[index + 1] = statement(event) end
        local response, err = http.post { url = url, headers = { ["content-type"] = "application/json" }, body = json.encode(statements), timeout = settings.timeout }
        local answer = response and response.status == 200 and json.decode(response.body)
        if not answer then return verdict.from_http(response, err) end
        return judge(answer.results or {})
      end,
    }
  end,
}
