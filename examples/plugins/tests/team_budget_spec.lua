local file = require "llmproxy.file"
local json = require "llmproxy.json"

local path

local function report_of(list)
  local result = run_pipeline { dispatcher = { "team_budget", path = path, budgets = { red = 1 } }, events = list }
  expect(result.outcomes[#list].result):to_be("delivered")
  return json.decode((assert(file.read(path))))
end

local function call(team, cost, id)
  local made = event { id = id }
  made.team, made.cost, made.llm = team, { total = cost }, { usage = { total_tokens = 10 } }
  return made
end

describe("team_budget", function()
  before_each(function()
    path = folder() .. "/budget.json"
    file.replace(path, '{"months":{}}')
  end)

  it("adds up what each team spends", function()
    local report = report_of { call("red", 0.5, "a"), call("red", 0.75, "b"), call("blue", 0.1, "c"), event() }
    expect(report.months["2026-01"]):to_equal {
      red = { calls = 2, tokens = 20, cost = 1.25 }, blue = { calls = 1, tokens = 10, cost = 0.1 }, unknown = { calls = 1, tokens = 0, cost = 0 },
    }
  end)

  it("counts an event once, and goes on after a restart", function()
    report_of { call("red", 0.5, "a"), call("red", 0.5, "a") }
    expect(report_of({ call("red", 0.25, "b") }).months["2026-01"].red):to_equal { calls = 2, tokens = 20, cost = 0.75 }
  end)
end)
