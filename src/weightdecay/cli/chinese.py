"""The help of the commands in Chinese, by the names of commands and of their options' fields.

The English stands with each option. A test holds both to the same names, defaults and values.
"""

import re
from typing import Any

from weightdecay.text import columns_of

SUMMARIES = {
    "weightdecay": "权重衰减（L2 正则化）：为用 PyTorch 训练模型的人而写。",
    "textbook": """看权重衰减如何起作用：样本太少的线性回归，不加衰减与加衰减各训练一次。

    分别从零开始和用 torch.optim 训练，打印一张表，并把曲线、结果和设置写入一个文件夹。
    所有默认值都与教材相同。
    """,
    "fit": """对一张表拟合岭回归或逻辑回归，λ 由留一法或交叉验证选出。

    weightdecay fit examples/data/tecator.csv --target fat --drop water,protein --out runs/fat

    目标列是数值时做回归；是文本或“是/否”时做分类，给出每个类别的概率；可用 --task 指定。

    写出模型（model.safetensors, model.json）、系数及其标准误（coefficients.csv）、各行被留出时的预测
    （out_of_fold.csv, .parquet）、整条路径（path.csv, .parquet, .safetensors, .json）、图
    （cv, coefficients, importance, predicted）和一个网页。分类时还有 confusion.csv、calibration.csv
    和图 reliability。

    每列按内容成为输入：数值、作为类别的文本、是/否。先列出对每列的处理；不给 --target 时只做这一步。
    行号、标识符和常数列会被略去。

    列名按 CSV 的写法：--drop 'a,"b, c"' 指两列，--drop "" 指没有名字的那一列。
    """,
    "predict": """用 fit 写出的模型预测新的行；列按名字对应，顺序不限。

    weightdecay predict runs/fat new.csv --out predictions.parquet

    缺少的列和未知的列会报错。拟合时作为目标、被略去、作为分组或权重的列不会用到。再长的表也分块读取。
    """,
    "sweep": """为一个模型寻找最好的权重衰减：同时以多个强度、多个种子训练。

    weightdecay sweep examples/digits.py --strengths 1e-3:30:24 --seeds 8 --out runs/digits

    文件里要有 make_model() -> model、data = (train, test)（或返回二者的函数）、loss(output, target)
    和自身不带衰减的 optimizer(parameters)；还可以有 metrics, schedule, epochs, batch_size, rule, on,
    clip, every, minimize, maximize。

    每次训练一完成就存盘；中断后用 --resume 继续。结束时还会写出表格（table.parquet, curves.parquet）、
    最好的权重、sweep.json 和一张图。
    """,
    "audit": """列出哪些参数衰减、多强、为什么，以及哪里看起来不对。

    weightdecay audit mypackage.train:build --steps 10000

    构造函数不带参数，返回 (model, optimizer)、(model, [optimizers], scheduler)，或以 wd.audit
    的参数名为键的字典。可以在 meta 设备上构造：不需要参数的值。

    退出码：0 没有错误，1 有级别为“错误”的结论，2 输入有误。
    """,
    "report": """写出解释一次运行的网页：一个可离线打开的 HTML 文件，中英双语。

    weightdecay report runs/textbook --open

    文件夹由 textbook、fit、sweep 或 `Monitored.save` 写出；也可以是一个文件：审计的计划。
    """,
    "transfer": """把权重衰减换算到另一批大小、学习率、调度或训练长度。

    weightdecay transfer 0.1 --old batch=256,lr=3e-4,steps=10000
    --new batch=1024,lr=6e-4,steps=5000,schedule=cosine

    调度：constant, linear, cosine, wsd。对解耦的衰减（如 AdamW）是精确的。
    """,
    "convert": """把一个强度换算成另一个库或教材的写法。

    weightdecay convert 3 --from textbook --to sklearn.Ridge --n 20
    """,
    "half-life": """计算没有梯度的权重在衰减下的半衰期，并对不合适的强度给出警告。

    weightdecay half-life --lr 3e-4 --weight-decay .1 --schedule cosine --steps 10000 --dtype bfloat16
    """,
}

# Options that mean the same in every command that has them.
_EVERYWHERE = {
    "help": "显示帮助并退出。",
    "version": "显示版本并退出。",
    "lang": "输出的语言：en 或 zh。[依 LC_ALL, LC_MESSAGES, LANG]",
    "as_json": "输出一个 JSON 对象，而不是文字。",
    "quiet": "除错误外什么都不输出。",
    "separator": "列与列之间的分隔符：';'、tab。[由前几行判断]",
    "decimal_comma": "小数点的写法。[由前几行判断]",
    "encoding": "文本的编码：utf-8, windows-1252, utf-16。[自动判断]",
    "law": "规则的衰减率随什么变化：lr, lr_relative, lr_squared 或 constant。",
    "out": "写入的文件夹。",
    "show": "完成后打开网页。",
}

OPTIONS = {
    "textbook": {
        "lambdas": "λ：0,3 或 起点:终点:个数。[0,3；有 --data 时为 0 与留一法的最优值]",
        "versions": "scratch, concise, concise-matched, two-optimizers，以逗号分隔，或 all。"
        "[scratch,concise]",
        "seed": "第一个种子：决定数据、初值和批次。[0]",
        "seeds": "种子的个数。[1]",
        "data": "用一张 .csv 或 .parquet 表代替合成数据。",
        "target": "与 --data 同用：要预测的列。",
        "drop": "与 --data 同用：不使用的列，以逗号分隔。",
        "n_train": "训练样本数。[20]",
        "n_test": "测试样本数。[100；有 --data 时为其余全部]",
        "n_inputs": "每个样本的输入数。[200]",
        "true_weight": "每个真实权重的值。[0.01]",
        "true_bias": "真实偏置。[0.05]",
        "noise": "噪声的标准差。[0.01]",
        "batch_size": "每批的行数。[5]",
        "lr": "学习率。[0.003]",
        "bias_lr": "two-optimizers 中 Adam 的学习率。[0.01]",
        "epochs": "每个样本使用多少轮。[100]",
        "every": "每隔多少轮评估一次损失。[5]",
        "init": "初值：normal，即 N(0,1)，或 zero。[normal]",
        "penalize_bias": "把偏置也计入惩罚。",
        "dtype": "float32 或 float64。[float32]",
        "curve": "λ 曲线图所用的 λ：一个网格，或 none。[1e-3:100:61；有 --data 时 1e-10:100:73]",
        "curve_seeds": "该图的种子数。[20]",
        "settings": "重跑：全部设置取自先前一次运行的 run.json。",
        "force": "文件夹里已有设置不同的运行时，替换它。",
        "as_json": "输出一个 JSON 对象，而不是表格。",
    },
    "fit": {
        "data": "一张表（.csv, .tsv, .txt, .parquet, .arrow），或一个文件夹。",
        "target": "要预测的列；多列以逗号分隔，写法同 CSV。[不给：列出各列]",
        "drop": "不使用的列，以逗号分隔。",
        "category": "作为类别的列，以逗号分隔。",
        "number": "作为数值的列，以逗号分隔。",
        "dates": "days：日期换成距第一个日期的天数。[遇到日期则报错]",
        "missing": "没有值的单元格：refuse 报错，drop 去掉该行，mean 用训练行的平均值填补。",
        "ids": "标识各行的列，以逗号分隔：不作输入，与预测一同保留。",
        "task": "regression 或 classification。[文本和是/否为 classification，否则 regression]",
        "judge": "分类的评价标准：log_loss, error, brier；两个类别时也可用 auc。[log_loss]",
        "cv": "loo, gcv, evidence 或折数。[loo；分类以及有 --groups, --time, --out-of-core 时为 5]",
        "lambdas": "λ：0.1,1 或 起点:终点:个数。[适合数据的网格]",
        "unit": "λ 的写法；weightdecay convert --list 列出各名称。",
        "choose": "模型的 λ：best，或 one-se，即一倍标准误之内的最强者。",
        "shared": "有多个目标时：共用一个 λ。",
        "seed": "打乱各折的随机种子。",
        "groups": "标签列：同一标签的行一同留出。",
        "time": "各行按时间排列：只用更早的行训练。",
        "weights": "各行权重所在的列。",
        "unpenalized": "不受惩罚的列，以逗号分隔。",
        "standardize": "每列除以其标准差。",
        "intercept": "free 不受惩罚，penalized 受惩罚，none 没有截距。",
        "out_of_core": "分块读取；大文件和文件夹总是如此。",
        "engine": "在多台机器上读取：dask，或调度器地址 tcp://host:port。",
        "force": "文件夹里已有设置不同的拟合时，替换它。",
    },
    "predict": {
        "model": "fit 写出的文件夹。",
        "data": "新的行所在的表。",
        "out": "要写的 .csv 或 .parquet 文件。",
        "ids": "标识各行的列，以逗号分隔。[拟合时的那些，若表中有]",
        "unseen": "拟合时没有出现过的类别取值：refuse 报错，base 当作最常见的取值。",
        "interval": "预测区间的概率，如 0.9；增加区间的两端。",
        "force": "文件里的列与这次的预测不同时，替换它。",
        "as_json": "输出一个 JSON 对象，而不是一行文字。",
    },
    "sweep": {
        "file": "一个 Python 文件，其中有 make_model, data, loss 和 optimizer。",
        "strengths": "要尝试的强度：0.1,1 或 起点:终点:个数（对数等距）；总会包括不衰减。",
        "unit": "强度的单位：weight-decay (λ), half-lives（整个训练）, half-life-steps, half-life-epochs, "
        "half-life-samples。",
        "seeds": "种子的个数，或以逗号分隔的各个种子。",
        "epochs": "遍历数据的轮数。[文件所给，否则 20]",
        "batch_size": "每步的样本数。[文件所给，否则 128 或全部]",
        "rule": "衰减规则，以逗号分隔：l2, decoupled, cautious, ... [文件所给，否则 decoupled]",
        "lr": "以学习率为第二个轴：1e-4:1e-2:5。[优化器自己的]",
        "minimize": "按 loss 或文件里的一个指标选择。[文件所给，否则 loss]",
        "maximize": "改为按越大越好的指标选择。",
        "widen": "最优值在边缘时，再扩展几次，每次一个数量级。",
        "refine": "在最优值附近把步长减半几次。",
        "engine": "在多台机器上训练：dask，或调度器地址 tcp://host:port；here：在一个进程里。"
        "[能省时间时用全部核心]",
        "device": "在哪里训练：cpu, cuda。[数据所在处]",
        "resume": "继续文件夹里的扫描。",
        "curves": "运行时画出刚完成的训练的曲线。",
        "as_json": "输出 JSON，每行一个对象：先是进度，最后是结果。",
    },
    "audit": {
        "target": "构造函数：mypackage.train:build 或 path/file.py:build。",
        "output": "table, json 或 github（注释）。",
        "ignore": "不报告的代码，以逗号分隔：WD105,WD103:head.*。可以写多次。",
        "steps": "整个训练的优化器步数。",
        "steps_per_epoch": "遍历一遍数据的优化器步数。",
        "interval": "调度每 step、每 epoch 或每若干步推进一次。[自动判断，否则 step]",
        "schedule": "lr 的调度：constant, linear, cosine, wsd。[构造函数的，否则没有]",
        "groups": "什么应该衰减：预设的名字，或 none。",
        "save": "把计划写入文件。",
        "against": "与保存的计划比较：任何不同都是错误。",
    },
    "report": {
        "folder": "命令写出的文件夹。",
        "out": "要写的文件。[FOLDER/report.html]",
        "show": "完成后打开。",
        "force": "替换不是本程序写出的文件。",
    },
    "transfer": {
        "weight_decay": "旧设置下的强度。",
        "old": "batch=256,lr=3e-4,steps=10000；以及 schedule=, warmup=, floor=, decay=, interval=, "
        "examples=, width=。",
        "new": "新的设置，写法相同。",
        "keep": "保持每次训练的半衰期数 (run)，或每轮的半衰期数 (epoch)。",
        "width_rule": "换成另一宽度：independent (2510.19093) 或 sqrt (2510.15262)。[都不用]",
    },
    "convert": {
        "value": "强度：3，或以逗号分隔的多个值。",
        "source": "它现在的写法。",
        "target": "想要的写法。",
        "n": "训练样本数。",
        "batch_size": "每批的样本数。",
        "micro_batches": "每步累加的微批次数。",
        "momentum": "SGD 的动量。",
        "dampening": "SGD 的 dampening。",
        "lr_max": "峰值学习率。",
        "sd_y": "y 的标准差（1/n）。",
        "sd_x": "每个特征的标准差（1/n），以逗号分隔。",
        "noise_sd": "噪声的标准差。",
        "show_list": "列出各种写法及其所需的信息。",
    },
    "half-life": {
        "lr": "调度峰值处的学习率。",
        "weight_decay": "强度。",
        "half_life": "改给：峰值处以步计的半衰期；由此得出强度。",
        "half_lives": "改给：整个训练经过的半衰期数；由此得出强度。",
        "schedule": "constant, linear, cosine 或 wsd。",
        "steps": "训练的步数。",
        "warmup": "lr 上升的步数占全部的比例。",
        "floor": "最后的学习率与 lr 之比。",
        "decay": "与 wsd 同用：lr 下降的步数占全部的比例。",
        "coupled": "torch 的 SGD 里的 L2，而不是解耦的衰减。",
        "momentum": "与 --coupled 同用：SGD 的动量。",
        "dampening": "与 --coupled 同用：SGD 的 dampening。",
        "nesterov": "与 --coupled 同用：Nesterov 动量。",
        "dtype": "权重的存储类型：float32, bfloat16, float16, float64。",
        "steps_per_epoch": "一轮的优化器步数，用于比较和 --interval。",
        "interval": "调度每 step、每 epoch 或每若干步推进一次。[step]",
    },
}


def help_of(command: Any, ctx: Any) -> str:
    """Return what --help prints, at the width of the terminal."""
    width = ctx.make_formatter().width
    name = command.name or "weightdecay"
    lines = [f"用法：{ctx.command_path} {_usage_words(command, ctx)}", ""]
    for paragraph in SUMMARIES[name].split("\n\n"):
        lines += [*wrapped(_joined(paragraph), width, "  "), ""]
    arguments: list[tuple[str, str]] = []
    options: list[tuple[str, str]] = []
    for parameter in command.get_params(ctx):
        left, english = parameter.get_help_record(ctx)
        known = OPTIONS.get(name, {})
        chinese = known.get(parameter.name) or _EVERYWHERE[parameter.name]
        row = left, f"{chinese}{_extra(english)}"
        (arguments if parameter.param_type_name == "argument" else options).append(row)
    lines += _section("参数", arguments, width) + _section("选项", options, width)
    if hasattr(command, "commands"):
        rows = [(word, _joined(SUMMARIES[word].split("\n\n")[0])) for word in command.list_commands(ctx)]
        lines += _section("命令", rows, width)
    return "\n".join(lines).rstrip()


def _usage_words(command: Any, ctx: Any) -> str:
    """What stands after the program's name: [OPTIONS] DATA."""
    words = " ".join(command.collect_usage_pieces(ctx))
    return words.replace("[OPTIONS]", "[选项]").replace("COMMAND [ARGS]...", "命令 [参数]...")


def _extra(english: str) -> str:
    """What the parser adds to the help of an option: its default, or that it is required."""
    found = re.search(r"  \[(default: (?P<default>.*)|required)\]$", english, re.DOTALL)
    if found is None:
        return ""
    return f"  [默认：{found['default']}]" if found["default"] else "  [必填]"


def _section(title: str, rows: list[tuple[str, str]], width: int) -> list[str]:
    """A heading, and two columns."""
    if not rows:
        return []
    first = min(30, max(columns_of(left) for left, _ in rows)) + 2
    lines = [f"{title}："]
    for left, right in rows:
        text = wrapped(right, width - first - 2, "")
        if columns_of(left) > first - 2:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left}{' ' * (first - columns_of(left))}{text.pop(0)}")
        lines += [f"{' ' * (first + 2)}{line}" for line in text]
    return [*lines, ""]


def _joined(paragraph: str) -> str:
    """A paragraph on one line: no space where a line ended in Chinese."""
    text = re.sub(r"\s*\n\s*", "\n", paragraph.strip())
    return re.sub(r"(?<=[⺀-￯])\n|\n(?=[（，。；：])", "", text).replace("\n", " ")


# What is not cut: a word, or a Chinese character with the marks that may not begin or end a line.
_PIECE = re.compile(r"[（“\[]*(?:[^\s⺀-￯“”]+|[⺀-￯])[，。；：、）！？”]*|\s+|.")


def wrapped(text: str, width: int, indent: str) -> list[str]:
    """Cut a text into lines of at most so many columns, between words or Chinese characters."""
    lines: list[str] = []
    line = ""
    for piece in _PIECE.findall(text):
        if line.strip() and columns_of(indent + line + piece.rstrip()) > width:
            lines.append(indent + line.strip())
            line = ""
        line += piece
    return [*lines, indent + line.strip()]


_USAGE = (
    (r"No such option: (\S+)", r"没有这个选项：\1"),
    (r" ?\(Possible options: (.*)\)", r"（可能是：\1）"),
    (r"No such command (.*?)\.(?= |$)", r"没有这个命令：\1。"),
    (r" ?Did you mean (.*)\?", r"是否想写 \1？"),
    (r"Missing command\.", "缺少命令。"),
    (r"Missing option (.*)\.(?= |$)", r"缺少选项 \1。"),
    (r"Missing argument (.*)\.(?= |$)", r"缺少参数 \1。"),
    (r"Invalid value for (.*?): ", r"\1 的值无效："),
    (r"Option (\S+) does not take a value\.", r"选项 \1 不带值。"),
    (r"Option (\S+) requires an argument\.", r"选项 \1 需要一个值。"),
    (r"Got unexpected extra argument\S* \((.*)\)", r"多出的参数：\1"),
    (r"Input should be a valid integer, unable to parse string as an integer", "不是整数"),
    (r"Input should be a valid number, unable to parse string as a number", "不是数"),
    (r"Input should be a finite number", "不是有限的数"),
)


def usage(error: Any) -> str:
    """Return the parser's message; what is not known of it stays English."""
    message = error.format_message()
    for english, chinese in _USAGE:
        message = re.sub(english, chinese, message)
    return message
