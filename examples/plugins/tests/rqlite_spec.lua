local json = require "llmproxy.json"

local function answered(results)
  return { status = 200, body = { results = json.array(results) } }
end

local function written(list, answers)
  local database = http.fake("http://127.0.0.1:4001", answers)
  local result = run_pipeline { transforms = { "llm" }, dispatcher = "rqlite", events = list, retry = { max_age = 600 } }
  return database.requests, result
end

describe("rqlite", function()
  it("sends one statement with parameters for each event", function()
    local requests = written({ event { id = "a", duration_ms = 12.5 }, event { id = "b", status = 500, response_body = json.null } }, answered { {}, { rows_affected = 1 }, { rows_affected = 1 } })
    expect(requests[1].path):to_be("/db/execute")
    local statements = requests[1].json()
    expect(statements):to_have_length(3)
    expect(statements[1][1]):to_match("^CREATE TABLE IF NOT EXISTS")
    expect(statements[2]):to_equal { statements[3][1], "a", "2026-01-02T03:04:05.678901Z", "openai", "gpt-4o-mini-2024-07-18", 200, 12.5, 10, 2 }
    expect(statements[3][9]):to_be(json.null)
  end)

  it("rejects the one that the database refuses", function()
    local _, result = written({ event(), event() }, answered { {}, { rows_affected = 1 }, { error = "NOT NULL constraint failed" } })
    expect(result.outcomes[1].result):to_be("delivered")
    expect({ result.outcomes[2].reason, result.outcomes[2].error }):to_equal { "rejected", "NOT NULL constraint failed" }
  end)

  it("waits for a database that is not ready", function()
    local requests, result = written({ event() }, { 503, answered { { error = "not leader" } }, answered { {}, {} } })
    expect({ #requests, result.outcomes[1].result }):to_equal { 3, "delivered" }
  end)
end)
